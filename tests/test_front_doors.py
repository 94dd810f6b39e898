"""What the packages offer: every name leads somewhere, and nothing heavy is imported before it is used."""

import importlib
import subprocess
import sys

import pytest

from agents.catalog import AGENTS
from envs.catalog import FAMILIES

OFFERED = {
    "metarl": {"evaluate", "list_experiments", "load", "make_family", "train"},
    "envs": {path.split(":")[1] for path in FAMILIES.values()}
    | {"make", "check_family", "GymnasiumFamily", "MujocoFamily"}
    | {"ActionRepeat", "Delayed", "Noisy", "TimeAware"}
    | {"Choice", "LogUniform", "Normal", "Uniform"},
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
