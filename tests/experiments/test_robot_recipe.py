"""`metarl new robot`: a recipe that runs for any robot with actuators, or one line."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from envs.check import check_family
from experiments.cli.robot_recipe import robot_recipe
from experiments.experiment.definition import load
from metarl.errors import UserError
from tests.experiments.command import run

ROOT = Path(__file__).parents[2]
CRANE = ROOT / "experiments" / "recipes" / "own_robot" / "crane.xml"
BODIES = ROOT / "envs" / "locomotion" / "bodies"
ARM = """<mujoco><worldbody><body name="arm"><joint name="{joint}" type="hinge" axis="0 1 0"/>
<geom type="capsule" fromto="0 0 0 .3 0 0" size=".02"/></body></worldbody>{actuator}</mujoco>"""


@pytest.mark.parametrize(
    ("robot", "asked"),
    [
        (CRANE, 'physics.position("trolley")'),  # whose first joint is driven
        (BODIES / "half_cheetah.xml", "physics.qvel[:, 0]"),
        (BODIES / "ant.xml", "physics.qvel[:, 0]"),
    ],
    ids=lambda value: value.stem if isinstance(value, Path) else "",
)
def test_a_new_recipe_is_a_family_that_keeps_the_laws(robot, asked, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(robot, tmp_path / robot.name)
    status, output, _ = run(capsys, "new", "robot", str(tmp_path / robot.name))
    recipe = tmp_path / f"{robot.stem}.py"
    assert (status, f"Recipe: {recipe.name}" in output) == (0, True)
    assert f"-({asked} - task.target)" in recipe.read_text()
    family = load(str(recipe)).family
    assert family.name == robot.stem
    check_family(replace(family, horizon=3), num_tasks=2)


def test_the_parts_of_the_robot_stand_in_the_comments():
    text = robot_recipe(CRANE, CRANE.with_name("other.py"))
    for line in ("#   trolley: slide, -2 to 2 (qpos 0)", "#   trolley: -1 to 1", "#   load: 0.55"):
        assert f"\n{line}\n" in text
    assert 'mjcf=Path(__file__).parent / "crane.xml"' in text
    assert 'mjcf=Path(__file__).parent / "own_robot/crane.xml"' in robot_recipe(CRANE, CRANE.parents[1] / "other.py")
    assert f'mjcf=Path("{CRANE}")' in robot_recipe(CRANE, Path("/elsewhere/robot.py"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<mujoco><worldbody/></mujoco>", "has no joints that could be driven; an agent needs one or more"),
        (ARM.format(joint="", actuator=""), "has no joints that could be driven"),
        ("<mujoco><worldbody>", "cannot be read: "),
    ],
)
def test_a_robot_that_cannot_be_used_is_one_line(text, message, tmp_path):
    path = tmp_path / "arm.xml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        robot_recipe(path, tmp_path / "arm.py")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("legs", [1, 2])
def test_a_urdf_file_is_given_servos_and_a_free_base_if_it_has_legs(legs, tmp_path):
    path = tmp_path / "walker.urdf"
    inertial = """<inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial>
        <collision><geometry><sphere radius="0.1"/></geometry></collision>"""
    moving = "".join(
        f"""<link name="leg{leg}">{inertial}</link><joint name="hip{leg}" type="revolute"><parent link="base"/>
        <child link="leg{leg}"/><axis xyz="0 1 0"/><limit lower="-1" upper="1" effort="6" velocity="1"/></joint>"""
        for leg in range(legs)
    )
    path.write_text(f'<robot name="walker"><link name="base">{inertial}</link>{moving}</robot>')
    text = robot_recipe(path, tmp_path / "walker.py")
    assert 'actuators={"*": Servo(kp=20, kd=0.5, armature=0.002)},  # by joint: the gains are a guess' in text
    assert ("free_base=True" in text) == (legs == 2)
    (tmp_path / "walker.py").write_text(text)
    check_family(replace(load(str(tmp_path / "walker.py")).family, horizon=3), num_tasks=2)


def test_a_slide_without_a_range_is_not_driven(tmp_path):
    path = tmp_path / "arm.xml"
    slide = '<body name="rail"><joint name="rail" type="slide"/><geom size=".1"/></body><body name="arm">'
    path.write_text(ARM.format(joint="elbow", actuator="").replace('<body name="arm">', slide))
    assert 'actuators={"elbow": Servo(' in robot_recipe(path, tmp_path / "arm.py")


def test_a_joint_that_cannot_be_at_zero_starts_in_the_middle_of_its_range(tmp_path):
    path = tmp_path / "arm.xml"
    path.write_text(ARM.format(joint="elbow", actuator="").replace('axis="0 1 0"', 'axis="0 1 0" range="30 90"'))
    text = robot_recipe(path, tmp_path / "arm.py")
    assert 'start={"elbow": 1.05},' in text
    (tmp_path / "arm.py").write_text(text)
    check_family(replace(load(str(tmp_path / "arm.py")).family, horizon=3), num_tasks=2)


def test_an_arm_without_limits_is_asked_for_positions_from_minus_one_to_one(tmp_path):
    path = tmp_path / "arm.xml"
    path.write_text(ARM.format(joint="elbow", actuator='<actuator><motor joint="elbow"/></actuator>'))
    text = robot_recipe(path, tmp_path / "arm.py")
    assert 'physics.position("elbow")' in text
    assert "Uniform(-1, 1)" in text


def test_a_recipe_is_never_overwritten(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(CRANE, tmp_path / "crane.xml")
    (tmp_path / "crane.py").write_text("mine")
    status, _, errors = run(capsys, "new", "robot", str(tmp_path / "crane.xml"))
    assert (status, errors.count("\n")) == (2, 1)
    assert "exists; choose another name with --out" in errors
    assert (tmp_path / "crane.py").read_text() == "mine"


def test_a_robot_that_is_not_there_is_one_line(capsys):
    status, _, errors = run(capsys, "new", "robot", "absent.xml")
    assert (status, errors) == (2, "metarl: there is no file at absent.xml\n")
