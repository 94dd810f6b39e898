"""What the packages offer: every name leads somewhere, and nothing heavy is imported before it is used."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agents.catalog import AGENTS
from envs.catalog import FAMILIES

ROOT = Path(__file__).parents[1]
OFFERED = {
    "metarl": {"evaluate", "list_experiments", "load", "make_family", "train"},
    "envs": {path.split(":")[1] for path in FAMILIES.values()}
    | {"make", "check_family", "GymnasiumFamily", "MujocoFamily"}
    | {"ActionRepeat", "Delayed", "History", "Noisy", "TimeAware"}
    | {"Choice", "Disc", "LogUniform", "Multiplier", "Normal", "Range", "Uniform"},
    "agents": {path.split(":")[1] for path in AGENTS.values()},
    "experiments": {"Expected", "Experiment", "TrainConfig", "load"},
}


@pytest.mark.parametrize("package", OFFERED)
def test_a_package_offers_these_names(package):
    module = importlib.import_module(package)
    assert list(module.__all__) == sorted(OFFERED[package])
    assert dir(module) == sorted(OFFERED[package])
    for name in OFFERED[package]:
        assert getattr(module, name).__name__ == name
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = module.nothing


@pytest.mark.parametrize("package", OFFERED)
def test_importing_a_package_imports_neither_torch_nor_a_simulator(package):
    program = f"import sys, {package}\nprint(sorted({{'torch', 'mujoco', 'tyro'}} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_the_stub_of_metarl_types_every_name_that_it_offers():
    stub = ast.parse((ROOT / "metarl" / "__init__.pyi").read_text())
    names = [alias.asname for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert names == sorted(OFFERED["metarl"])


@pytest.mark.parametrize("package", OFFERED)
def test_every_public_name_is_in_the_documentation(package):
    listed = (ROOT / "docs" / "python.md").read_text().partition("## Public names")[2]
    (row,) = (line for line in listed.splitlines() if line.startswith(f"| `{package}` "))
    assert re.findall(r"`(\w+)`", row) == [package, *sorted(OFFERED[package])]
