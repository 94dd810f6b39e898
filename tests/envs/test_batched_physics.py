"""What functions of a robot ask of its physics: frames, velocities, contacts, sites, sensors, against MuJoCo's own."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from envs.locomotion.actions import AroundPose
from envs.locomotion.quadruped import BODY, FEET
from envs.simulators.batched import BatchedPhysics, Names
from envs.simulators.cpu import CpuPhysics
from envs.simulators.rotations import about_vertical, rotate, rotate_back, yaw_of
from envs.simulators.state import State

FIELDS = ("xpos", "xquat", "cvel", "subtree_com", "site_xpos", "sensordata", "ctrl")


@pytest.fixture(scope="module")
def tumbling() -> tuple[BatchedPhysics, list[Any], Any]:
    """Quadrupeds that turn and fall, as functions see them, and MuJoCo's own data of each."""
    engine = CpuPhysics(BODY, 3, num_threads=1)
    generator = torch.Generator().manual_seed(0)
    qpos = torch.from_numpy(engine.model.key_qpos[0]).expand(3, -1).clone()
    qpos[:, 2] = 1.0
    qpos[:, 3:7] = torch.nn.functional.normalize(torch.randn(3, 4, generator=generator, dtype=torch.float64), dim=1)
    state = State.of(engine, FIELDS)
    engine.reset(qpos, torch.randn(3, engine.model.nv, generator=generator, dtype=torch.float64))
    datas = [engine.copy_row(row)[1] for row in range(3)]
    return BatchedPhysics(state, None, 0.03, Names(engine.model)), datas, engine.model


@pytest.mark.parametrize("body", ["trunk", "rear_left_shank"])
def test_velocities_in_a_bodys_axes_are_mujocos(tumbling, body):
    physics, datas, model = tumbling
    for row, data in enumerate(datas):
        expected = np.zeros(6)
        kind = mujoco.mjtObj.mjOBJ_XBODY  # type: ignore[attr-defined]
        for frame, local in (("body", 1), ("world", 0)):
            mujoco.mj_objectVelocity(model, data, kind, model.body(body).id, expected, local)  # type: ignore[attr-defined]
            assert physics.angular_velocity(body, frame)[row].numpy() == pytest.approx(expected[:3])
            assert physics.linear_velocity(body, frame)[row].numpy() == pytest.approx(expected[3:])


def test_frames_are_the_bodys_rotation_and_its_heading(tumbling):
    physics, datas, _ = tumbling
    vector = torch.tensor([[1.0, 2.0, -0.5]], dtype=torch.float64).expand(3, 3)
    for row, data in enumerate(datas):
        rotation = data.body("trunk").xmat.reshape(3, 3)
        assert physics.in_world(vector, "trunk")[row].numpy() == pytest.approx(rotation @ vector[row].numpy())
        assert physics.in_frame(vector, "trunk")[row].numpy() == pytest.approx(rotation.T @ vector[row].numpy())
        assert physics.projected_gravity("trunk")[row].numpy() == pytest.approx(-rotation[2])
        ahead = rotation[:2, 0] / np.linalg.norm(rotation[:2, 0])
        seen = physics.in_world(torch.eye(3, dtype=torch.float64)[:1].expand(3, 3), "trunk", "heading")[row]
        assert seen.numpy() == pytest.approx([*ahead, 0.0])
        assert float(physics.heading("trunk")[row]) == pytest.approx(np.arctan2(ahead[1], ahead[0]))
    there = physics.in_world(physics.in_frame(vector, "trunk", "heading"), "trunk", "heading")
    assert torch.allclose(there, vector)
    assert torch.equal(physics.in_frame(vector, "trunk", "world"), vector)


def test_a_quarter_turn_by_hand():
    quarter = about_vertical(torch.tensor([torch.pi / 2]))
    assert rotate(quarter, torch.tensor([[1.0, 0, 3]]))[0].tolist() == pytest.approx([0, 1, 3], abs=1e-6)
    assert rotate_back(quarter, torch.tensor([[0.0, 1, 3]]))[0].tolist() == pytest.approx([1, 0, 3], abs=1e-6)
    assert float(yaw_of(quarter)) == pytest.approx(torch.pi / 2)


def test_feet_carry_the_weight_of_a_robot_that_stands():
    engine = CpuPhysics(BODY, 2, num_threads=1)
    home = torch.from_numpy(engine.model.key_qpos[0]).expand(2, -1).clone()
    home[1, 2] += 0.05  # the second one is in the air at first
    physics = BatchedPhysics(State.of(engine, FIELDS), None, 0.03, Names(engine.model))
    engine.reset(home, torch.zeros(2, engine.model.nv, dtype=torch.float64))
    command = physics.controls("home").expand(2, -1)
    engine.step(command, 2)
    assert [bool(physics.touches(foot)[1]) for foot in FEET] == [False] * 4
    engine.step(command, 600)
    force = torch.stack([physics.contact_force(foot) for foot in FEET]).sum(0)
    weight = 9.81 * float(engine.model.body_mass.sum())
    assert force[:, 2].tolist() == pytest.approx([weight] * 2, rel=0.02)
    assert [bool(physics.touches(foot).all()) for foot in FEET] == [True] * 4


def test_sites_and_sensors_have_names(tumbling):
    physics, _, _ = tumbling
    assert physics.sensor("front_left_foot").shape == (3, 4)
    for call, expected in (
        (lambda: physics.site("tip"), "the model has no site 'tip': it has "),
        (lambda: physics.sensor("imu"), "the model has no sensor 'imu': it has 'front_left_foot'"),
        (lambda: physics.touches("hoof"), "the model has no geom 'hoof': it has 'floor', 'front_left_foot'"),
        (
            lambda: physics.contact_force("trunk"),
            "geom 'trunk' has no sensor of contacts; add <contact geom1=\"trunk\" ",
        ),
        (lambda: physics.controls("sit"), "the model has no keyframe 'sit': it has 'home'"),
    ):
        with pytest.raises(ValueError) as error:  # noqa: PT011, the messages are compared
            call()
        assert expected in str(error.value)


def test_actions_around_a_pose(tumbling):
    physics, _, model = tumbling
    action = torch.tensor([[0.0] * 8, [1.0] * 8, [-1.0] * 8])
    controls = AroundPose("home", 0.5)(physics, action, None)
    home = torch.from_numpy(model.key_ctrl[0])
    assert torch.allclose(controls, torch.stack([home, home + 0.5, home - 0.5]))
    numbers = SimpleNamespace(qpos=torch.zeros(1, 2))
    controls = AroundPose((0.1, 0.2), (1.0, 2.0))(numbers, torch.ones(1, 2), None)
    assert controls.tolist() == [pytest.approx([1.1, 2.2])]


def test_the_bodies_come_with_the_package():
    assert BODY.parent == Path(BODY).parents[0]
    assert {"quadruped.xml", "arm.xml"} <= {file.name for file in BODY.parent.iterdir()}
