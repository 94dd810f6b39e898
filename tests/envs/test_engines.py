"""One family on several physics engines: `OnEngine`, and Gymnasium's own environments as an engine."""

import sys
from typing import Any

import pytest
import torch

from envs.check import check_family
from envs.locomotion.ant import AntDir
from envs.locomotion.dynamics import AntDynamics
from envs.locomotion.half_cheetah import HalfCheetahRandParams, HalfCheetahVel
from envs.locomotion.quadruped import QuadrupedVel
from envs.locomotion.walkers import Walker2dRandParams
from envs.simulators import make_physics
from envs.simulators.gymnasium_engine import GymnasiumPhysics
from envs.torch_families.gridworld import GridNavi
from envs.wrappers import Effort, OnEngine

FAMILIES = [
    HalfCheetahVel(horizon=6),
    HalfCheetahRandParams(horizon=6),
    Walker2dRandParams(horizon=6),  # with another number of substeps than Gymnasium's
    AntDynamics(horizon=6),  # with models of their own
    AntDir(horizon=6, contact_forces=True),
]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trace(family: Any, num_steps: int) -> list[torch.Tensor]:
    """What 3 rows see, are paid and cost in some steps of random actions."""
    env = family.make_env(3, generator(1))
    steps = [env.reset(family.sample(3, "test", generator(2)))]
    draws, size = generator(3), family.action_space.shape[0]
    for number in range(num_steps):
        active = None if number != 2 else torch.tensor([True, False, True])
        steps.append(env.step(2 * torch.rand(3, size, generator=draws) - 1, active))
    parts = [(step.obs, step.next_obs, step.reward[:, None], step.metrics) for step in steps]
    return [torch.cat(part, 1) for part in parts]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_gymnasiums_own_environments_give_the_c_engines_bits(family):
    ours, theirs = (trace(Effort(OnEngine(family, engine)), 8) for engine in ("mujoco", "gymnasium"))
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(other, own, rtol=0, atol=0, equal_nan=True)


def test_a_family_on_gymnasiums_environments_obeys_the_laws(caplog):
    check_family(OnEngine(HalfCheetahVel(horizon=8), "gymnasium"))
    assert not caplog.records


def test_the_name_the_tasks_and_the_bounds_are_the_familys_own():
    family = HalfCheetahVel()
    other = OnEngine(family, "gymnasium")
    tasks: Any = other.sample(2, "test", generator())
    assert other.name == family.name
    assert torch.equal(tasks.velocity, family.sample(2, "test", generator()).velocity)
    assert other.bounds(tasks, 2) == family.bounds(tasks, 2)


def test_a_simulation_of_gymnasiums_that_diverges_is_found_and_starts_anew():
    physics = GymnasiumPhysics(HalfCheetahVel().body, 2)
    qpos, qvel = physics.initial_qpos.expand(2, -1).clone(), torch.zeros(2, 9, dtype=torch.float64)
    qvel[1] = 1e12
    physics.reset(qpos, qvel)
    diverged = physics.step(torch.zeros(2, 6), 1)
    assert diverged is not None
    assert diverged.tolist() == [False, True]
    physics.reset(qpos, torch.zeros_like(qvel), diverged)
    assert physics.step(torch.zeros(2, 6), 1) is None


@pytest.mark.parametrize(
    ("family", "engine", "message"),
    [
        (GridNavi(), "mujoco", "engine is 'mujoco', but grid_navi is not simulated by MuJoCo"),
        (QuadrupedVel(), "gymnasium", "engine is 'gymnasium'; must be one of mujoco, mujoco_warp for quadruped_vel"),
        (HalfCheetahVel(), "bullet", "engine is 'bullet'; must be one of mujoco, mujoco_warp, gymnasium for half_chee"),
    ],
)
def test_an_engine_that_a_family_does_not_have_is_refused(family, engine, message):
    with pytest.raises(ValueError, match=message):
        OnEngine(family, engine)


def test_an_engine_that_is_not_installed_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco_warp", None)
    with pytest.raises(ValueError, match="engine is 'mujoco_warp', but mujoco-warp is not installed: pip install"):
        OnEngine(HalfCheetahVel(), "mujoco_warp")


def test_an_engine_of_the_cpu_and_a_body_of_another_file_are_refused(tmp_path):
    body = HalfCheetahVel().body
    with pytest.raises(ValueError, match="engine is 'mujoco', which simulates on the CPU only: device is 'cuda'"):
        make_physics(body, 1, torch.device("cuda"), engine="mujoco")
    with pytest.raises(ValueError, match=r"engine is 'gymnasium', which simulates ant, half_cheetah, .* only"):
        make_physics(tmp_path / "robot.xml", 1, torch.device("cpu"), engine="gymnasium")
