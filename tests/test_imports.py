"""Imports point one way: records <- protocols <- the rest of metarl <- agents; protocols <- envs; all <- experiments.

Of the rest of metarl, environments may import `checks`, `parallel` and `_lazy`, which import nothing else of ours
but `errors`.

Read from the source text, so imports inside functions and under TYPE_CHECKING count too.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = ("metarl", "envs", "agents", "experiments", "tests")


def imported(file: Path) -> set[str]:
    """The modules of ours that a file imports anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return {name for name in names if name.split(".")[0] in OURS}


def top_level(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def sources(package: str) -> list[Path]:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files, f"{package} has no files"
    return files


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("metarl", {"metarl"}),
        ("agents", {"metarl", "agents"}),
        ("envs", {"metarl", "envs"}),
        ("experiments", {"metarl", "envs", "agents", "experiments"}),
    ],
)
def test_packages_import_only_those_below_them(package, allowed):
    for file in sources(package):
        assert top_level(imported(file)) <= allowed, file


def test_environments_know_only_records_protocols_and_four_helpers_of_the_core():
    for file in sources("envs"):
        core = {".".join(name.split(".")[:2]) for name in imported(file) if name.startswith("metarl")}
        helpers = {"metarl.checks", "metarl.errors", "metarl.parallel", "metarl._lazy"}
        assert core <= {"metarl.records", "metarl.protocols", *helpers}, file


def test_the_helpers_of_environments_import_nothing_of_ours():
    for name in ("checks", "_lazy", "noise", "shared_memory"):
        assert not imported(ROOT / "metarl" / f"{name}.py")
    assert {name.split(".")[1] for name in imported(ROOT / "metarl" / "parallel.py") if name.count(".")} == {
        "errors",
        "noise",
        "shared_memory",
    }


def test_records_come_first_and_protocols_second():
    assert not imported(ROOT / "metarl" / "records.py")
    protocols = {name for name in imported(ROOT / "metarl" / "protocols.py") if name.count(".") == 1}
    assert protocols == {"metarl.records"}


def test_recipes_leave_command_line_and_benchmarks_alone():
    for file in sources("experiments/recipes"):
        ours = {".".join(name.split(".")[:2]) for name in imported(file) if name.startswith("experiments.")}
        assert ours <= {"experiments.Expected", "experiments.Experiment", "experiments.recipes"}, file


def test_recipes_import_only_recipes_of_their_own_family():
    for file in sources("experiments/recipes"):
        for name in imported(file):
            if name.startswith("experiments.recipes."):
                assert name.split(".")[2] == file.parent.name, file


def test_adaptation_knows_nothing_of_few_shot_methods():
    for file in sources("metarl/adaptation"):
        assert not any(name.startswith("metarl.fewshot") for name in imported(file)), file


def test_what_methods_share_knows_none_of_them():
    methods = ROOT / "metarl" / "fewshot" / "methods"
    for file in sources("metarl/fewshot"):
        if methods not in file.parents:
            assert not any(name.startswith("metarl.fewshot.methods") for name in imported(file)), file


def test_the_only_look_upwards_is_by_name_in_the_front_door_of_the_core():
    offered = re.compile(r"(envs|agents|experiments)(\.\w+)+:")
    looks = {}
    for file in sources("metarl"):
        strings = [node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant)]
        looks[file] = {text.split(":")[0] for text in strings if isinstance(text, str) and offered.match(text)}
    assert {file: found for file, found in looks.items() if found} == {
        ROOT / "metarl" / "__init__.py": {"experiments.experiment.python"}
    }
