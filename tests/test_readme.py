"""The README: its commands run what exists, and it names every family and command."""

import re
from pathlib import Path

from experiments.cli.main import COMMANDS
from experiments.experiment import names

ROOT = Path(__file__).resolve().parents[1]
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


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
