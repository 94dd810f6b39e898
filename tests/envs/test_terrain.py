"""Slopes, bumps and steps of the ground as task parameters."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from envs.check import check_family
from envs.locomotion.custom_robot import MujocoFamily
from envs.samplers import Choice, Uniform

CRATE = """
<mujoco>
  <option timestep="0.005" cone="elliptic" impratio="10"/>
  <worldbody>
    {ground}
    <body name="crate" pos="0 0 0.3">
      <freejoint name="root"/>
      <geom type="box" size="0.1 0.1 0.1" mass="2" friction="0.4"/>
    </body>
    <body name="wheel" pos="0 3 2"><joint name="turn"/><geom size="0.1"/></body>
  </worldbody>
  <actuator><motor name="turn" joint="turn" ctrlrange="-1 1"/></actuator>
</mujoco>
"""
PLANE = '<geom name="floor" type="plane" size="9 9 1" pos="0 0 0.2" friction="0.4"/>'


@pytest.fixture(scope="module")
def crate(tmp_path_factory) -> Any:
    """Makes families of a crate on a plane 0.2 m above the origin."""

    def make(tasks: dict[str, Any], ground: str = PLANE) -> Any:
        path = tmp_path_factory.mktemp("crate") / "crate.xml"
        path.write_text(CRATE.format(ground=ground))
        return MujocoFamily(
            mjcf=path,
            observe=lambda physics, task: torch.cat([physics.qpos, physics.qvel], dim=1),
            reward=lambda physics, action, task: physics.qpos[:, 0],
            tasks=tasks,
            horizon=60,
            frame_skip=4,
            start_noise=0.0,
        )

    return make


def started(family: Any, **values: list[float]) -> Any:
    """An environment with a row for each task."""
    generator = torch.Generator().manual_seed(0)
    count = len(next(iter(values.values())))
    env = family.make_env(count, generator)
    tasks = type(family.sample(count, "train", generator))
    env.reset(tasks(**{name: torch.tensor(value) for name, value in values.items()}))
    return env


def heights(env: Any, row: int, places: list[tuple[float, float]]) -> list[float]:
    """The height of a row's ground over places (x, y)."""
    model, data = env.physics.copy_row(row)
    hit = np.zeros(1, dtype=np.int32)
    return [
        5 - mujoco.mj_ray(model, data, [x, y, 5.0], [0, 0, -1.0], None, 1, 1, hit)  # pyright: ignore[reportAttributeAccessIssue]
        for x, y in places
    ]


def test_a_slope_rises_along_x_and_a_crate_slides_where_it_is_too_steep(crate):
    """With a friction of 0.4, a crate holds up to atan 0.4 = 0.38 rad and slides with g (sin - 0.4 cos) beyond."""
    env = started(crate({"terrain_slope": Uniform(-0.6, 0.6)}), terrain_slope=[0.0, 0.3, 0.5])
    assert heights(env, 1, [(0.5, 2.0), (-1.0, 0.0)]) == pytest.approx(
        [0.2 + 0.5 * math.tan(0.3), 0.2 - math.tan(0.3)], abs=1e-3
    )
    for _ in range(30):  # it falls, and comes to lie or slides
        env.step(torch.zeros(3, 1))
    before = env.physics.qvel.clone()
    for _ in range(20):
        env.step(torch.zeros(3, 1))
    gained = (before - env.physics.qvel)[:, 0] / 0.4  # m/s² down the slope along x, over 0.4 s
    expected = 9.81 * (math.sin(0.5) - 0.4 * math.cos(0.5)) * math.cos(0.5)
    assert gained.tolist() == pytest.approx([0.0, 0.0, expected], abs=0.1)


def test_bumps_lie_below_the_plane_and_are_as_high_as_the_task_says(crate):
    env = started(crate({"terrain_bumps": Choice([0.0, 0.1])}), terrain_bumps=[0.0, 0.1])
    places = [(x / 10, y / 10) for x in range(-30, 30, 3) for y in range(-30, 30, 3)]
    flat, rough = (np.array(heights(env, row, places)) for row in range(2))
    assert np.abs(flat - 0.2).max() < 1e-3
    assert 0.1 - 1e-3 < rough.min() < 0.11
    assert 0.19 < rough.max() < 0.2 + 1e-3
    assert 0.02 < rough.std() < 0.04  # of a uniform distribution: 0.029


def test_steps_rise_from_the_start_on_all_sides(crate):
    env = started(crate({"terrain_steps": Choice([0.0, 0.12])}), terrain_steps=[0.12, 0.0])
    assert heights(env, 0, [(0, 0), (0.3, 0), (-0.6, 0), (0, 0.9), (0.9, 0.3)]) == pytest.approx(
        [0.2, 0.32, 0.44, 0.56, 0.56], abs=1e-3
    )
    assert heights(env, 1, [(0, 0), (0.9, 0.3)]) == pytest.approx([0.2, 0.2], abs=1e-3)


def test_the_laws_hold_and_levels_are_near_the_tasks_values(crate):
    family = crate(
        {"terrain_slope": Uniform(-0.1, 0.1), "terrain_bumps": Uniform(0, 0.1), "terrain_steps": Uniform(0, 0.1)}
    )
    check_family(replace(family, horizon=10), num_tasks=2)
    bumps = torch.linspace(0, 0.1, 5)
    env = started(family, terrain_slope=[0.0] * 5, terrain_bumps=bumps.tolist(), terrain_steps=[0.0] * 5)
    places = [(x / 10, y / 10) for x in range(-30, 30, 3) for y in range(-30, 30, 3)]
    found = [0.2 - min(heights(env, row, places)) for row in range(5)]
    assert np.abs(np.array(found) - bumps.numpy()).max() < 0.015


@pytest.mark.parametrize(
    ("ground", "message"),
    [
        ("", "the world has 0 planes; must have one, for tasks with terrain"),
        (PLANE + PLANE.replace("floor", "roof"), "the world has 2 planes; must have one"),
        (PLANE.replace("pos=", 'euler="0 10 0" pos='), "the plane 'floor' is turned; must be level"),
    ],
)
def test_ground_of_another_kind_is_refused(crate, ground, message):
    with pytest.raises(ValueError, match=message):
        crate({"terrain_bumps": Uniform(0, 0.1)}, ground)


def test_a_camera_looks_at_the_robot_and_not_at_all_of_the_ground(crate):
    flat, rough = (crate({name: Uniform(0.1, 0.2)}).model for name in ("terrain_slope", "terrain_bumps"))
    assert rough.stat.extent == flat.stat.extent < 5
    assert rough.hfield_size[0, 1] > 50


def test_a_robots_file_is_left_as_it_is(crate):
    family = crate({"terrain_bumps": Uniform(0, 0.1)})
    assert Path(family.mjcf).read_text() == CRATE.format(ground=PLANE)
