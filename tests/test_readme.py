"""The README: its commands run what exists, and it names every family, command and module."""

import re
from pathlib import Path

import pytest

from experiments import names
from experiments.cli import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def command(marker: str) -> str:
    found = re.search(rf"<!-- {marker} -->\n```bash\n(.+)\n```", README)
    assert found, f"no {marker}"
    return found[1]


def test_the_main_command_trains_an_experiment_there_is():
    name = command("main command").split()[-1]
    assert name in names.experiment_names()
    assert command("main command").endswith(f"metarl train {name}")


def test_the_test_command_runs_these_tests():
    assert command("test command").startswith("python3 -m venv .venv && ")
    assert command("test command").endswith(".venv/bin/python -m pytest")


def test_every_family_and_command_is_in_its_table():
    for family in names.FAMILIES:
        assert f"| `{family}` |" in README
    for name in COMMANDS:
        assert f"| `metarl {name}" in README


def tree() -> set[str]:
    """The paths that the tree names, of files and (with a slash at the end) of folders.

    A line is in the folder of the nearest line above that is indented less; what is named behind a folder is in it.
    """
    paths: set[str] = set()
    folders: list[tuple[int, str]] = []  # indentation and path of those that the line is in
    for line in README.split("## The tree")[1].split("Imports point one way")[0].splitlines():
        indent = len(line) - len(line.lstrip())
        folders = [(outer, path) for outer, path in folders if outer < indent]
        inside = folders[-1][1] if folders else ""
        for place, name in enumerate(re.findall(r"[\w.<>/]+(?:\.py|/)(?![\w/])|\.ci/run", line)):
            paths.add(inside + name)
            if place == 0 and name.endswith("/"):
                inside += name
                folders.append((indent, inside))
    return paths


def test_what_the_tree_names_is_there():
    named = {path for path in tree() if "<" not in path}
    assert {"metarl/", "metarl/run.py", "metarl/adaptation/sequence.py", "envs/simulators/gpu.py", ".ci/run"} <= named
    for path in named:
        found = ROOT / path
        assert found.is_dir() if path.endswith("/") else found.is_file(), f"{path} is in the tree and nowhere else"


@pytest.mark.parametrize("package", ["metarl", "envs", "agents", "experiments"])
def test_the_tree_names_every_module_and_folder(package):
    named = tree()
    for file in (ROOT / package).glob("*.py"):
        if file.name != "__init__.py":
            assert f"{package}/{file.name}" in named, f"{package}/{file.name} is not in the README's tree"
    for folder in {file.parent for file in (ROOT / package).rglob("*.py")} - {ROOT / package}:
        path = f"{folder.relative_to(ROOT)}/"
        if package == "experiments" and folder.name in names.FAMILIES:
            path = "experiments/<family>/<recipe>.py"
        assert path in named, f"{path} is not in the README's tree"


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
