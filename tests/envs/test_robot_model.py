"""Robots from URDF files, and the actuators, the base and the ground that a family adds to a file."""

import itertools
import logging
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from envs.check import check_family
from envs.locomotion.custom_robot import MujocoFamily
from envs.samplers import Uniform
from envs.simulators.actuators import Motor, Servo
from envs.simulators.inertias import possible_inertia
from envs.simulators.mesh_files import converts_collada
from envs.simulators.mjcf_files import files_of
from envs.simulators.robot_model import robot_model
from experiments.experiment.dependencies import files_behind

INERTIAL = """<inertial><origin xyz="0 0 -0.1"/><mass value="{mass}"/>
    <inertia ixx="0.01" iyy="0.01" izz="0.01" ixy="0" ixz="0" iyz="0"/></inertial>"""
LEG = """
  <link name="{name}">{inertial}
    <collision><origin xyz="0 0 -0.1"/><geometry>{shape}</geometry></collision>
  </link>
  <joint name="{name}_hip" type="{kind}">
    <parent link="base"/><child link="{name}"/><origin xyz="{x} 0 0"/><axis xyz="0 1 0"/>
    <limit lower="-1" upper="0.5" effort="20" velocity="9"/>
  </joint>"""
URDF = """<robot name="walker">{extension}
  <link name="base">{inertial}
    <collision><geometry><box size="0.5 0.3 0.1"/></geometry></collision>
    <visual><geometry><mesh filename="package://walker/meshes/shell.dae"/></geometry></visual>
  </link>{legs}
</robot>"""
CYLINDER = '<cylinder radius="0.02" length="0.2"/>'
TETRAHEDRON = """v 0 0 0\nv 0.1 0 0\nv 0 0.1 0\nv 0 0 -0.2\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"""


def urdf(shape: str = CYLINDER, kind: str = "revolute", extension: str = "") -> str:
    legs = "".join(
        LEG.format(name=name, x=x, kind=kind, shape=shape, inertial=INERTIAL.format(mass=0.5))
        for name, x in (("front", 0.2), ("back", -0.2))
    )
    return URDF.format(inertial=INERTIAL.format(mass=4), legs=legs, extension=extension)


@pytest.fixture
def walker(tmp_path) -> Callable[..., Path]:
    """Writes the URDF file of a robot in a package, with its meshes."""

    def write(text: str, meshes: tuple[str, ...] = ()) -> Path:
        path = tmp_path / "walker" / "urdf" / "walker.urdf"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for name in meshes:
            mesh = tmp_path / "walker" / name
            mesh.parent.mkdir(parents=True, exist_ok=True)
            mesh.write_text(TETRAHEDRON)
        return path

    return write


def test_a_run_keeps_the_files_of_a_urdf_robot(walker):
    path = walker(urdf('<mesh filename="package://walker/meshes/foot.obj"/>'), ("meshes/foot.obj",))
    family = MujocoFamily(
        mjcf=path,
        observe=lambda physics, task: physics.qpos,
        reward=lambda physics, action, task: physics.qpos[:, 0] * task.goal,
        tasks={"goal": Uniform(0, 1)},
        actuators=SERVOS,
        horizon=3,
    )
    kept = {file.name for file in files_behind(family, None)}
    assert {"walker.urdf", "foot.obj"} <= kept


SERVOS = {"*": Servo(kp=40, kd=1)}


def test_a_urdf_robot_stands_on_the_ground_with_servos(walker):
    family = MujocoFamily(
        mjcf=walker(urdf()),
        observe=lambda physics, task: torch.cat([physics.qpos, physics.qvel], dim=1),
        reward=lambda physics, action, task: physics.qvel[:, 0],
        tasks={
            "actuator_kp": Uniform(0.5, 2),
            "payload": Uniform(0, 1, bodies=["base"]),
            "terrain_slope": Uniform(-0.1, 0.1),
        },
        actuators=SERVOS,
        free_base=True,
        horizon=10,
        frame_skip=10,
    )
    check_family(family)
    model = family.model
    assert [model.actuator(index).name for index in range(model.nu)] == ["front_hip", "back_hip"]
    assert model.actuator_ctrlrange.tolist() == [[-1, 0.5]] * 2
    assert model.actuator_forcerange.tolist() == [[-20, 20]] * 2
    assert model.qpos0[2] == pytest.approx(0.2)  # its feet just touch the ground
    assert model.nlight == 1
    assert model.geom("floor").type == 0


def test_joints_start_where_they_are_asked_to_with_the_feet_on_the_ground(walker):
    def family(**start: float) -> MujocoFamily:
        return MujocoFamily(
            mjcf=walker(urdf()),
            observe=lambda physics, task: physics.qpos,
            reward=lambda physics, action, task: physics.qvel[:, 0],
            tasks={"motor_strength": Uniform(0.5, 1)},
            actuators=SERVOS,
            free_base=True,
            horizon=10,
            start={name.replace("_any", "*"): value for name, value in start.items()},
            start_noise=0.0,
        )

    env = family(front_hip=0.5, _any=-0.4).make_env(2, torch.Generator().manual_seed(0))
    env.reset(family(front_hip=0.5).sample(2, "train", torch.Generator().manual_seed(0)))
    assert env.physics.qpos[0, 7:].tolist() == pytest.approx([0.5, -0.4])
    assert env.physics.data("ctrl")[0].tolist() == pytest.approx([0.5, -0.4])
    foot = 0.2 * math.cos(0.4) + 0.02 * math.sin(0.4)  # of the leg that reaches deeper, a box around a cylinder
    assert float(env.physics.qpos[0, 2]) == pytest.approx(foot, abs=1e-6)
    with pytest.raises(
        ValueError, match=r"start has 'knee'; must be a hinge or a slide, or .*: 'front_hip', 'back_hip'"
    ):
        family(knee=1.0)
    with pytest.raises(ValueError, match="start of 'front_hip' is nan; must be a finite number"):
        family(front_hip=math.nan)


def test_a_base_that_is_fixed_stays_fixed(walker):
    model = robot_model(walker(urdf()), {}, SERVOS)
    assert (model.nq, model.nu) == (2, 2)
    assert not any(model.geom(index).name == "floor" for index in range(model.ngeom))


@pytest.mark.parametrize(
    ("name", "place", "extension"),
    [
        ("package://walker/meshes/foot.obj", "meshes/foot.obj", ""),
        ("package://walker/meshes/foot.dae", "meshes/foot.obj", ""),  # a format that MuJoCo does not read
        ("package://elsewhere/meshes/foot.obj", "meshes/foot.obj", ""),
        ("../meshes/foot.obj", "meshes/foot.obj", ""),
        ("foot.obj", "urdf/foot.obj", ""),
        ("foot.obj", "meshes/foot.obj", '<mujoco><compiler meshdir="../meshes"/></mujoco>'),
        ("wrong/foot.obj", "meshes/foot.obj", '<mujoco><compiler meshdir="../meshes" balanceinertia="true"/></mujoco>'),
    ],
)
def test_meshes_are_found_and_kept(walker, name, place, extension):
    path = walker(urdf(f'<mesh filename="{name}"/>', extension=extension), (place,))
    model = robot_model(path, {}, SERVOS)
    assert model.nmesh == 1
    kept = [file.resolve() for file in files_of(path)]
    assert kept == [path.resolve(), (path.parents[1] / place).resolve()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (urdf('<mesh filename="foot.ply"/>'), "mesh of link 'front' is 'foot.ply'; must be STL, OBJ or MSH"),
        (urdf('<mesh filename="foot.stl"/>'), "collision mesh of link 'front' is 'foot.stl'; there is no such file"),
        (urdf('<mesh filename="foot.dae"/>'), "mesh of link 'front' is 'foot.dae'; "),
        (urdf().replace("<robot", '<robot xmlns:xacro="http://www.ros.org/wiki/xacro"').replace(
            "</robot>", "<xacro:leg/></robot>"), "a xacro file; must be URDF: expand it first, with the command xacro"),
        ("<robot", "not a URDF file: unclosed token"),
        ("<mujoco/>", "its root is <mujoco>; must be <robot>, as in URDF"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_read_are_named(walker, text, message):
    with pytest.raises(ValueError, match=message):
        robot_model(walker(text), {}, SERVOS)


def test_a_mesh_as_text_is_read(walker):
    facets = "".join(
        "facet normal 0 0 0\nouter loop\n" + "".join(f"vertex {corner}\n" for corner in corners) + "endloop\nendfacet\n"
        for corners in itertools.combinations(("0 0 0", "0.1 0 0", "0 0.1 0", "0 0 -0.2"), 3)
    )
    path = walker(urdf('<mesh filename="foot.stl"/>'))
    path.with_name("foot.stl").write_text(f"solid foot\n{facets}endsolid foot\n")
    model = robot_model(path, {}, SERVOS)
    assert model.mesh_vertnum.tolist() == [4]
    path.with_name("foot.stl").write_text("solid foot\nvertex 1 2 3\nendsolid foot\n")
    with pytest.raises(ValueError, match=r"foot\.stl: the mesh has 1 corners; must have three for each triangle"):
        robot_model(path, {}, SERVOS)


COLLADA = """<COLLADA xmlns="http://www.collada.org/2005/11/COLLADASchema" version="1.4.1">
  <asset><up_axis>Z_UP</up_axis></asset>
  <library_geometries><geometry id="foot"><mesh>
    <source id="corners"><float_array id="numbers" count="12">0 0 0 0.1 0 0 0 0.1 0 0 0 -0.2</float_array>
      <technique_common><accessor source="#numbers" count="4" stride="3">
        <param name="X" type="float"/><param name="Y" type="float"/><param name="Z" type="float"/>
      </accessor></technique_common></source>
    <vertices id="vertices"><input semantic="POSITION" source="#corners"/></vertices>
    <triangles count="4"><input semantic="VERTEX" source="#vertices" offset="0"/>
      <p>0 2 1 0 1 3 0 3 2 1 2 3</p></triangles>
  </mesh></geometry></library_geometries>
  <library_visual_scenes><visual_scene id="scene"><node><instance_geometry url="#foot"/></node></visual_scene>
  </library_visual_scenes>
  <scene><instance_visual_scene url="#scene"/></scene>
</COLLADA>"""


def test_a_mesh_in_collada_is_converted_where_that_is_installed(walker):
    path = walker(urdf('<mesh filename="package://walker/meshes/foot.dae"/>'))
    mesh = path.parents[1] / "meshes" / "foot.dae"
    mesh.parent.mkdir()
    mesh.write_text(COLLADA)
    if not converts_collada():
        with pytest.raises(ValueError, match=r"must be STL, OBJ or MSH, or install metarl\[collada\]"):
            robot_model(path, {}, SERVOS)
        return
    model = robot_model(path, {}, SERVOS)
    assert model.mesh_vertnum.tolist() == [4]
    assert np.ptp(model.mesh_vert, axis=0).max() > 0.19
    assert mesh in files_of(path)


def test_links_that_only_join_others_have_a_least_mass(walker):
    virtual = '<link name="virtual"/><joint name="slide" type="prismatic"><parent link="base"/><child link="virtual"/>'
    text = urdf().replace('<parent link="base"/>', '<parent link="virtual"/>', 1)
    model = robot_model(walker(text.replace("</robot>", f'{virtual}<limit lower="0" upper="1"/></joint></robot>')), {})
    assert (model.nq, model.body("virtual").mass) == (3, 1e-4)


def test_an_impossible_inertia_is_warned_of_and_made_possible(walker, caplog):
    text = urdf().replace('ixx="0.01"', 'ixx="0.03"', 1)  # of the base: 0.03 > 0.01 + 0.01
    with caplog.at_level(logging.WARNING):
        model = robot_model(walker(text), {}, SERVOS, free_base=True)
    assert "walker.urdf: no body has the inertias of 'base'; the nearest possible ones are taken" in caplog.text
    assert sorted(model.body("base").inertia) == pytest.approx([0.015, 0.015, 0.03], rel=1e-3)


@pytest.mark.parametrize(
    ("principal", "expected"),
    [
        ((1, 2, 3), None),
        ((1, 1, 3), (1.5, 1.5, 3)),
        ((0, 0, 2), (1, 1, 2)),
        ((-1, 2, 2), (0, 2, 2)),
        ((1e-6, 1, 1), None),
    ],
)
def test_the_nearest_possible_inertia_keeps_the_largest_and_the_axes(principal, expected):
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    found = possible_inertia(axes @ np.diag(principal) @ axes.T)
    if expected is None:
        assert found is None
        return
    assert found is not None
    first, second, third = np.linalg.eigvalsh(found)
    assert (first, second, third) == pytest.approx(expected, abs=0.01)
    assert first > 0
    assert first + second >= third
    assert possible_inertia(found) is None
    assert np.diag(axes.T @ found @ axes) == pytest.approx(expected, abs=0.01)


def test_a_motors_control_is_a_fraction_of_its_largest_force(walker):
    model = robot_model(walker(urdf()), {}, {"front_*": Motor(), "*": Servo(kp=3, force=7, limits=(-2, 2))})
    assert model.actuator_gear[0, 0] == 20
    assert model.actuator_ctrlrange.tolist() == [[-1, 1], [-2, 2]]
    assert model.actuator_forcerange[1].tolist() == [-7, 7]


def test_a_joint_that_turns_for_ever_has_a_servo_for_one_turn(walker):
    model = robot_model(walker(urdf(kind="continuous")), {}, SERVOS)
    assert model.actuator_ctrlrange[0].tolist() == pytest.approx([-math.pi, math.pi])


MJCF = """
<mujoco>
  <compiler angle="degree"/>
  <worldbody>
    <body name="upper"><joint name="shoulder" axis="0 1 0" range="-90 45"/><geom size="0.1" mass="1"/>
      <body name="lower" pos="0 0 -0.3"><joint name="rod" type="slide"/><geom size="0.1" mass="1"/></body>
    </body>
  </worldbody>
  <actuator><motor name="own" joint="shoulder" ctrlrange="-1 1"/><motor name="push" joint="rod" ctrlrange="-1 1"/></actuator>
  <keyframe><key name="home" qpos="0.5 0.1" ctrl="1 1"/></keyframe>
</mujoco>
"""  # noqa: E501


def test_actuators_replace_those_of_the_same_joints_and_hold_the_keyframes(tmp_path):
    path = tmp_path / "arm.xml"
    path.write_text(MJCF)
    model = robot_model(path, {}, {"shoulder": Servo(kp=20)})
    assert [model.actuator(index).name for index in range(model.nu)] == ["push", "shoulder"]
    assert model.actuator("shoulder").ctrlrange.tolist() == pytest.approx([-math.pi / 2, math.pi / 4])
    assert model.key("home").ctrl.tolist() == [0, 0.5]


@pytest.mark.parametrize(
    ("actuators", "message"),
    [
        ({"elbow*": Motor(force=1)}, r"actuators has 'elbow\*'; must be a hinge or a slide, or .*'shoulder', 'rod'"),
        ({"rod": Motor()}, r"joint 'rod' has no largest force; set one: Motor\(force=...\)"),
        ({"rod": Servo(kp=1)}, r"joint 'rod' has no range; set one: Servo\(..., limits=\(low, high\)\)"),
        ({"rod": 3}, "actuators has 3 for 'rod'; must be a Servo or a Motor"),
    ],
)
def test_mistakes_in_actuators_are_named(tmp_path, actuators, message):
    path = tmp_path / "arm.xml"
    path.write_text(MJCF)
    with pytest.raises(ValueError, match=message):
        robot_model(path, {}, actuators)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kp": 0}, "kp is 0; must be positive"),
        ({"kp": 1, "kd": -1}, "kd is -1; must be at least 0"),
        ({"kp": 1, "limits": (2, 1)}, r"limits is \(2, 1\); must be two numbers in order"),
    ],
)
def test_mistakes_in_servos_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Servo(**settings)


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ('<body name="a"><geom size="1"/></body><body name="b"><geom size="1"/></body>', "has 2 bodies in the world"),
        ('<body name="a"><joint/><geom size="1"/></body>', "the base 'a' has joints already; leave it out"),
    ],
)
def test_a_base_that_cannot_be_freed_is_named(tmp_path, elements, message):
    path = tmp_path / "robot.xml"
    path.write_text(f"<mujoco><worldbody>{elements}</worldbody></mujoco>")
    with pytest.raises(ValueError, match=message):
        robot_model(path, {}, free_base=True)
