"""The README and docs: their commands run what exists, and they name every family and command."""

import re
from pathlib import Path

import pytest

from experiments.cli.main import COMMANDS
from experiments.experiment import names

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
PAGES += sorted((ROOT / "docs").rglob("*.md"))


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
    assert command("test command").endswith(".venv/bin/python -m pytest -n auto --dist worksteal")


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150


def test_every_family_and_command_is_in_its_table():
    families = (ROOT / "docs" / "families.md").read_text()
    commands = (ROOT / "docs" / "command_line.md").read_text()
    for family in names.FAMILIES:
        assert f"| `{family}` |" in families
    for name in COMMANDS:
        assert f"| `metarl {name}" in commands


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target
