"""Robots as packages on PyPI ship them: each is a family that keeps the laws, or one line says why not.

pip install --no-deps example-robot-data gymnasium-robotics dm-control pybullet
"""

import importlib.metadata
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from envs.check import check_family
from envs.simulators.mesh_files import converts_collada
from envs.simulators.mjcf_files import files_of
from experiments.cli.robot_recipe import robot_recipe
from experiments.experiment.definition import load
from metarl.errors import UserError

pytestmark = pytest.mark.slow

ROBOTS = {  # by package: files, and what is wrong with them
    "example-robot-data": {
        "a1_description/urdf/a1.urdf": "",
        "go1_description/urdf/go1.urdf": "",
        "anymal_c_simple_description/urdf/anymal.urdf": "",
        "solo_description/robots/solo12.urdf": "",
        "panda_description/urdf/panda.urdf": "",
        "ur_description/urdf/ur5_robot.urdf": "",
        "simple_humanoid_description/urdf/simple_humanoid.urdf": "",
        "kinova_description/robots/kinova.urdf": "" if converts_collada() else "must be STL, OBJ or MSH",
        "iris_description/robots/iris_simple.urdf": "has no joints that could be driven",
    },
    "gymnasium-robotics": {
        "assets/hand/manipulate_block_touch_sensors.xml": "",  # tendons, includes and 92 touch sensors
        "assets/adroit_hand/adroit_hammer.xml": "",
        "assets/kitchen_franka/kitchen_assets/kitchen_env_model.xml": "",
    },
    "dm-control": {"suite/dog.xml": "", "suite/quadruped.xml": "", "suite/humanoid.xml": ""},
    "pybullet": {
        "pybullet_data/a1/a1.urdf": "",
        "pybullet_data/franka_panda/panda.urdf": "",
        "pybullet_data/r2d2.urdf": "",
    },
}


def shipped(package: str, file: str) -> Path:
    """The path of a package's file; skips the test where the package is not installed."""
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed")
    [found] = [each for each in files if f"/{each.as_posix()}".endswith(f"/{file}")]
    return Path(str(found.locate()))


@pytest.mark.parametrize(("package", "file"), [(package, file) for package, files in ROBOTS.items() for file in files])
def test_a_robot_is_a_family_or_one_line_says_why_not(package: str, file: str, tmp_path: Path) -> None:
    path, recipe, problem = shipped(package, file), tmp_path / "robot.py", ROBOTS[package][file]
    if problem:
        with pytest.raises(UserError, match=problem) as error:
            robot_recipe(path, recipe)
        assert "\n" not in str(error.value)
        return
    recipe.write_text(robot_recipe(path, recipe))
    family = load(str(recipe)).family
    check_family(replace(family, horizon=3), num_tasks=2)
    kept = files_of(path)
    root = Path(os.path.commonpath([file.parent for file in kept]))
    for original in kept:
        copy = tmp_path / "kept" / original.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(original, copy)
    again = replace(family, mjcf=tmp_path / "kept" / path.relative_to(root))
    assert again.model.nmeshvert == family.model.nmeshvert  # the copies of a run are complete
