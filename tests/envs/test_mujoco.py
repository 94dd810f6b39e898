"""MuJoCo on CPU threads: the body against Gymnasium's, rewards by hand, time limits, physics per task, divergence."""

from __future__ import annotations

import logging
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv
from gymnasium.utils.env_match import check_environments_match
from gymnasium.utils.seeding import np_random
from gymnasium.wrappers import DtypeObservation

from envs.bridges.gymnasium_env import GymnasiumEnv
from envs.locomotion.half_cheetah import BODY, HalfCheetahDir, HalfCheetahRandParams, HalfCheetahVel
from envs.locomotion.mujoco_env import MujocoEnv
from envs.locomotion.tasks import DirectionTasks, PhysicsTasks, VelocityTasks
from envs.samplers import Range
from envs.simulators.cpu import CpuPhysics, suitable_threads
from envs.simulators.cpu_count import _cgroup_cpus, available_cpus
from envs.simulators.state import State

NOMINAL = {"body_mass": np.ones(7), "dof_damping": np.ones(6), "geom_friction": np.ones((9, 3))}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def nominal(num_tasks: int = 1) -> PhysicsTasks:
    return PhysicsTasks(torch.ones(num_tasks, 7), torch.ones(num_tasks, 6), torch.ones(num_tasks, 9, 3))


def random_actions(num_steps: int, num_rows: int, seed: int = 0) -> torch.Tensor:
    return 2 * torch.rand(num_steps, num_rows, 6, generator=generator(seed)) - 1


# The body and Gymnasium's HalfCheetah-v5


def test_the_body_has_gymnasiums_mechanics() -> None:
    """Every numeric field of the compiled models is equal to the last bit, but for looks, names and sizes of memory."""
    ours = mujoco.MjModel.from_xml_path(str(BODY))  # type: ignore[attr-defined]
    theirs = HalfCheetahEnv().model  # its XML warns that settotalmass is deprecated; the handler logs that
    looks = ("mat_", "tex_", "light_", "name", "geom_rgba", "geom_user", "geom_matid", "signature", "cam_")
    sizes = ("nmat", "ntex", "ntexdata", "nnames", "nnames_map", "nuser_geom", "narena", "nbuffer")
    compared = 0
    for field in dir(theirs):
        value = getattr(theirs, field)
        if field.startswith(("_", *looks)) or field in sizes or not isinstance(value, np.ndarray | int | float):
            continue
        assert np.array_equal(value, getattr(ours, field)), field
        compared += isinstance(value, np.ndarray) and value.size > 0
    assert compared > 100
    for option in ("timestep", "gravity", "integrator", "solver", "iterations", "tolerance", "cone", "disableflags"):
        assert np.array_equal(getattr(theirs.opt, option), getattr(ours.opt, option)), option


class _ResetLikeGymnasium(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Starts an episode from the state that HalfCheetah-v5 draws for the same seed: our noise has another generator."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        _, info = self.env.reset(seed=seed, options=options)
        physics = self.unwrapped._env.physics  # type: ignore[attr-defined]
        numpy_generator, _ = np_random(seed)
        qpos = physics.initial_qpos.numpy() + numpy_generator.uniform(-0.1, 0.1, 9)
        qvel = 0.1 * numpy_generator.standard_normal(9)
        physics.reset(torch.from_numpy(qpos)[None], torch.from_numpy(qvel)[None])
        return np.concatenate((qpos[1:], qvel)).astype(np.float32), info


@pytest.mark.filterwarnings("ignore:.*precision lowered by casting to float32")
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_steps_equal_gymnasiums(seed: int) -> None:
    """At nominal physics, with Gymnasium's control cost.

    Equal to the last bit: observations (ours are Gymnasium's float64, rounded to float32), ends, and the state. The
    reward is computed in the same order but kept in float32: equal to float32's precision, checked below.
    """
    theirs = DtypeObservation(gymnasium.make("HalfCheetah-v5", max_episode_steps=-1), np.float32)
    family: Any = HalfCheetahRandParams(control_cost=0.1, horizon=1000)
    ours = _ResetLikeGymnasium(GymnasiumEnv(family, task=NOMINAL))
    check_environments_match(theirs, ours, 200, seed=seed, skip_rew=True, info_comparison="skip")

    theirs.reset(seed=seed)
    ours.reset(seed=seed)
    for action in random_actions(50, 6, seed)[:, 0].numpy():
        expected, actual = theirs.step(action), ours.step(action)
        assert actual[1] == pytest.approx(expected[1], rel=1e-6, abs=1e-6)
    assert np.array_equal(theirs.unwrapped.data.qpos, ours.unwrapped._env.physics.qpos[0])  # type: ignore
    theirs.close()


@pytest.mark.parametrize("num_threads", [1, 3])
def test_threads_do_not_change_results(num_threads: int) -> None:
    """The batch equals a loop of mj_step over one MjData a row, to the last bit."""
    physics = CpuPhysics(BODY, 5, num_threads)
    qpos = physics.initial_qpos + 0.1 * torch.rand(5, 9, generator=generator(), dtype=torch.float64)
    physics.reset(qpos, torch.zeros(5, 9, dtype=torch.float64))
    actions = random_actions(40, 5).double()
    for action in actions:
        assert physics.step(action, 5) is None
    model = mujoco.MjModel.from_xml_path(str(BODY))  # type: ignore[attr-defined]
    for row in range(5):
        data = mujoco.MjData(model)  # type: ignore[attr-defined]
        data.qpos[:] = qpos[row]
        for action in actions[:, row]:
            data.ctrl[:] = action
            for _ in range(5):
                mujoco.mj_step(model, data)  # type: ignore[attr-defined]
        assert np.array_equal(data.qpos, physics.qpos[row])
        assert np.array_equal(data.qvel, physics.qvel[row])


# Rewards and observations, by hand


def reward_of(family: Any, tasks: Any, x: tuple[float, float], action: list[float]) -> float:
    """The reward of one row whose x goes from x[0] to x[1] in 0.05 s."""
    before, after = torch.zeros(1, 9, dtype=torch.float64), torch.zeros(1, 9, dtype=torch.float64)
    before[0, 0], after[0, 0] = x
    qvel = torch.full((1, 9), 100.0, dtype=torch.float64)  # not what the reward is about
    moments = State(qpos=before), State(qpos=after, qvel=qvel)
    reward = family.reward(*moments, torch.tensor([action]), tasks, 0.05)
    assert reward.dtype == torch.float32
    return float(reward)


@pytest.mark.parametrize(
    ("family", "tasks", "x", "action", "expected"),
    [
        # v = (0.1 - 0) / 0.05 = 2; |2 - 1.5| = 0.5; |a|² = 1 + 0.25 = 1.25, times 0.05 = 0.0625
        (HalfCheetahVel(), VelocityTasks(torch.tensor([1.5])), (0.0, 0.1), [1, 0.5, 0, 0, 0, 0], -0.5625),
        (HalfCheetahVel(), VelocityTasks(torch.tensor([3.0])), (5.0, 5.1), [0, 0, 0, 0, 0, 0], -1.0),
        (HalfCheetahVel(control_cost=0.1), VelocityTasks(torch.tensor([2.0])), (0.0, 0.1), [1] * 6, -0.6),
        # v = -0.2 / 0.05 = -4; |a|² = 6, times 0.05 = 0.3
        (HalfCheetahDir(), DirectionTasks(torch.tensor([-1.0])), (0.2, 0.0), [1, -1, 1, -1, 1, -1], 3.7),
        (HalfCheetahDir(), DirectionTasks(torch.tensor([1.0])), (0.2, 0.0), [1, -1, 1, -1, 1, -1], -4.3),
        (HalfCheetahDir(sparse_distance=2.0), DirectionTasks(torch.tensor([-1.0])), (-1.9, -2.1), [0] * 6, 4.0),
        (HalfCheetahDir(sparse_distance=2.0), DirectionTasks(torch.tensor([1.0])), (-1.9, -2.1), [0] * 6, -4.0),
        (HalfCheetahDir(sparse_distance=2.0), DirectionTasks(torch.tensor([1.0])), (1.7, 1.9), [1] * 6, -0.3),
        (HalfCheetahRandParams(), nominal(), (0.0, 0.05), [0, 0, 0, 0, 0, 1], 0.95),
        (HalfCheetahRandParams(control_cost=0.0), nominal(), (0.0, 0.05), [1] * 6, 1.0),
    ],
)
def test_rewards_by_hand(family: Any, tasks: Any, x: tuple[float, float], action: list[float], expected: float) -> None:
    assert reward_of(family, tasks, x, action) == pytest.approx(expected, abs=1e-6)


def test_the_observation_leaves_out_x() -> None:
    qpos, qvel = torch.arange(9.0).double()[None], 10 + torch.arange(9.0).double()[None]
    expected = [*range(1, 9), *range(10, 19)]
    assert HalfCheetahRandParams().observation(State(qpos=qpos, qvel=qvel), nominal()).tolist() == [expected]


def test_with_a_sparse_reward_x_is_observed_last() -> None:
    family = HalfCheetahDir(sparse_distance=2.0)
    qpos, qvel = torch.arange(9.0).double()[None], 10 + torch.arange(9.0).double()[None]
    tasks = DirectionTasks(torch.tensor([1.0]))
    expected = [*range(1, 9), *range(10, 19), 0.0]
    assert family.observation(State(qpos=qpos, qvel=qvel), tasks).tolist() == [expected]
    assert family.observation_space.shape == (18,)
    assert family.observation_names is not None
    assert (len(family.observation_names), family.observation_names[-1]) == (18, "x")


def test_the_reward_uses_the_clipped_action_and_the_real_displacement() -> None:
    env = HalfCheetahDir().make_env(2, generator())
    env.reset(DirectionTasks(torch.tensor([1.0, -1.0])))
    x_before = env.physics.qpos[:, 0].clone()
    step = env.step(torch.full((2, 6), 7.0))
    velocity = (env.physics.qpos[:, 0] - x_before) / 0.05
    expected = torch.tensor([1.0, -1.0]) * velocity - 0.05 * 6
    assert torch.allclose(step.reward, expected.float(), atol=1e-6)


# Time limits, autoreset, rows that are not active


def rollout(env: MujocoEnv[Any], actions: torch.Tensor, active: torch.Tensor | None = None) -> list[Any]:
    return [env.step(action, None if active is None else active[index]) for index, action in enumerate(actions)]


def test_staggered_rows_end_on_their_own() -> None:
    """Rows that stood still for some steps reach the horizon that much later, and only they are reset then."""
    horizon, family = 4, HalfCheetahVel(horizon=4)
    env = family.make_env(3, generator())
    env.reset(family.sample(3, "train", generator()))
    active = torch.ones(14, 3, dtype=torch.bool)
    active[1, 1] = active[2, 1] = active[5, 2] = False
    steps = rollout(env, random_actions(14, 3), active)
    taken = torch.zeros(3, dtype=torch.int64)
    for step, row_active in zip(steps, active, strict=True):
        taken += row_active
        expected = row_active & (taken > 0) & (taken % horizon == 0)
        assert torch.equal(step.truncated, expected)
        assert not step.terminated.any()
        assert torch.equal((step.obs != step.next_obs).any(1), expected)
        assert (step.reward[~row_active] == 0).all()
        assert (step.obs[expected, :8].abs() <= 0.1).all()


def test_resting_rows_go_on_as_if_nothing_had_happened() -> None:
    family = HalfCheetahVel(horizon=50)
    tasks = family.sample(2, "train", generator())
    actions = random_actions(12, 2)
    env = family.make_env(2, generator(1))
    env.reset(tasks)
    expected = rollout(env, actions)[-1]
    env = family.make_env(2, generator(1))
    env.reset(tasks)
    rollout(env, actions[:5])
    before = env.physics.qpos.clone()
    rest = env.step(torch.ones(2, 6), torch.tensor([False, False]))
    assert torch.equal(before, env.physics.qpos)
    assert torch.equal(rest.obs[:, :8], before[:, 1:].float())
    assert torch.equal(rollout(env, actions[5:])[-1].obs, expected.obs)


def test_the_noise_at_reset_is_gymnasiums() -> None:
    env = HalfCheetahVel().make_env(2000, generator())
    env.reset(HalfCheetahVel().sample(1, "train", generator()))
    noise = env.physics.qpos - env.physics.initial_qpos
    assert noise.abs().max() <= 0.1
    assert abs(float(noise.std()) - 0.1 / math.sqrt(3)) < 0.001  # 18 000 uniform numbers
    assert abs(float(env.physics.qvel.std()) - 0.1) < 0.003
    assert float(env.physics.qvel.abs().max()) > 0.3  # Gaussian, not bounded


def test_steps_work_in_and_out_of_inference_mode() -> None:
    family = HalfCheetahVel(horizon=3)
    with torch.inference_mode():
        env = family.make_env(2, generator())
        env.reset(family.sample(2, "train", generator()))
        rollout(env, random_actions(4, 2))
    assert rollout(env, random_actions(4, 2).requires_grad_())[1].truncated.all()


# Tasks


def test_directions_are_balanced_unless_asked_otherwise() -> None:
    directions = HalfCheetahDir().sample(100, "train", generator()).direction
    assert directions.sum() == 0
    assert set(directions.tolist()) == {-1.0, 1.0}
    assert directions[:50].sum() != 50  # in random order
    odd = {float(HalfCheetahDir().sample(3, "test", generator(seed)).direction.sum()) for seed in range(20)}
    assert odd == {-1.0, 1.0}
    assert len({float(HalfCheetahDir().sample(1, "train", generator(seed)).direction) for seed in range(20)}) == 2
    independent = {
        float(HalfCheetahDir(balanced=False).sample(2, "train", generator(seed)).direction.sum()) for seed in range(20)
    }
    assert independent == {-2.0, 0.0, 2.0}
    with pytest.raises(ValueError, match="split is 'ood'; must be one of train, test for half_cheetah_dir"):
        HalfCheetahDir().sample(2, "ood", generator())


def test_the_ranges_of_tasks() -> None:
    velocity = HalfCheetahVel(velocity=Range(0, 2)).sample(4000, "train", generator()).velocity
    assert 0 <= velocity.min() < 0.01
    assert 1.99 < velocity.max() < 2.0
    velocity = HalfCheetahVel(velocity=Range(0, 2)).sample(4000, "ood", generator()).velocity
    assert 2.0 < velocity.min() < 2.01
    assert 2.66 < velocity.max() <= 2 + 2 / 3 + 1e-6
    mass = HalfCheetahRandParams().sample(1000, "train", generator()).body_mass.log() / math.log(1.5)
    assert -3 <= mass.min() < -2.99
    assert 2.99 < mass.max() <= 3.0001
    damping = HalfCheetahRandParams().sample(1000, "ood", generator()).dof_damping.log() / math.log(1.3)
    assert 2.9999 < damping.abs().min() < 3.01
    assert 3.99 < damping.abs().max() < 4.0001
    assert damping.min() < 0 < damping.max()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"horizon": 0}, "horizon is 0; must be at least 1"),
        ({"control_cost": -0.1}, "control_cost is -0.1"),
    ],
)
def test_a_wrong_variant_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HalfCheetahVel(**arguments)


def test_wrong_calls_are_named() -> None:
    env = HalfCheetahVel().make_env(4, generator())
    with pytest.raises(RuntimeError, match="step was called before reset"):
        env.step(torch.zeros(4, 6))
    with pytest.raises(ValueError, match="there are 3 tasks"):
        env.reset(HalfCheetahVel().sample(3, "train", generator()))
    env.reset(HalfCheetahVel().sample(2, "train", generator()))
    with pytest.raises(ValueError, match=r"action has shape \(6,\); must be \(4, 6\)"):
        env.step(torch.zeros(6))
    bad = torch.zeros(4, 6)
    bad[2, 1] = math.nan
    with pytest.raises(ValueError, match=r"action of row 2 is .*nan"):
        env.step(bad)
    with pytest.raises(ValueError, match="num_rows is 0"):
        HalfCheetahVel().make_env(0, generator())


# Physics per task


def test_physics_per_task_equal_a_model_of_its_own() -> None:
    """A row with changed fields moves, to the last bit, as MuJoCo's own loop does on an edited model."""
    family = HalfCheetahRandParams()
    tasks = family.sample(3, "train", generator(5))
    env = family.make_env(6, generator())  # two rows a task
    env.reset(tasks)
    start = env.physics.qpos.clone(), env.physics.qvel.clone()
    actions = random_actions(30, 6)
    rollout(env, actions)
    for row in range(6):
        model = mujoco.MjModel.from_xml_path(str(BODY))  # type: ignore[attr-defined]
        model.body_mass[1:] *= tasks.body_mass[row // 2].double().numpy()
        model.body_inertia[1:] *= tasks.body_mass[row // 2].double().numpy()[:, None]
        model.dof_damping[3:] *= tasks.dof_damping[row // 2].double().numpy()
        model.geom_friction *= tasks.geom_friction[row // 2].double().numpy()
        data = mujoco.MjData(model)  # type: ignore[attr-defined]
        mujoco.mj_setConst(model, data)  # type: ignore[attr-defined]
        mujoco.mj_resetData(model, data)  # type: ignore[attr-defined]
        data.qpos[:], data.qvel[:] = start[0][row], start[1][row]
        for action in actions[:, row].double():
            data.ctrl[:] = action
            for _ in range(5):
                mujoco.mj_step(model, data)  # type: ignore[attr-defined]
        assert np.array_equal(data.qpos, env.physics.qpos[row])


def test_physics_follow_the_tasks_of_the_last_reset() -> None:
    family = HalfCheetahRandParams()
    env, fresh = family.make_env(2, generator()), family.make_env(2, generator())
    env.reset(family.sample(2, "train", generator(1)))
    env.reset(nominal(2))
    fresh.reset(nominal(2))
    for physics in (env.physics, fresh.physics):
        physics.reset(physics.initial_qpos.expand(2, 9), torch.zeros(2, 9, dtype=torch.float64))
    actions = random_actions(20, 2)
    assert torch.equal(rollout(env, actions)[-1].obs, rollout(fresh, actions)[-1].obs)


def test_each_changed_field_matters() -> None:
    ones = nominal()
    double = {name: 2 * value for name, value in vars(ones).items()}
    finals = []
    for changed in ({}, *({name: value} for name, value in double.items())):
        env = HalfCheetahRandParams().make_env(1, generator())
        env.reset(PhysicsTasks(**(vars(ones) | changed)))
        finals.append(rollout(env, random_actions(30, 1))[-1].obs)
    assert all(not torch.equal(finals[0], other) for other in finals[1:])


def test_options_can_differ_by_row() -> None:
    physics = CpuPhysics(BODY, 2)
    gravity = torch.tensor([[0.0, 0.0, -9.81], [0.0, 0.0, 0.0]], dtype=torch.float64)
    physics.set_fields({"opt.gravity": gravity})
    physics.reset(physics.initial_qpos.expand(2, 9), torch.zeros(2, 9, dtype=torch.float64))
    physics.step(torch.zeros(2, 6, dtype=torch.float64), 10)
    assert physics.qpos[0, 1] < -0.01
    assert abs(physics.qpos[1, 1]) < 1e-6
    with pytest.raises(ValueError, match="'body_weight' is not a field"):
        physics.set_fields({"body_weight": torch.ones(2, 8)})
    with pytest.raises(ValueError, match=r"'body_mass' has shape \(2, 7\); must be \(2, 8\)"):
        physics.set_fields({"body_mass": torch.ones(2, 7)})


# Simulations that diverge


@pytest.mark.parametrize("blow_up", ["huge", "nan"])
def test_a_diverged_row_ends_is_reset_counted_and_logged(blow_up: str, caplog: pytest.LogCaptureFixture) -> None:
    family = HalfCheetahVel(horizon=10)
    env = family.make_env(4, generator())
    env.reset(VelocityTasks(torch.tensor([0.5, 1.0, 1.5, 2.0])))
    rollout(env, random_actions(3, 4))
    obs_before = env.physics.qpos[:, 1:].float()
    if blow_up == "huge":
        env.physics.qvel[2] = 1e9
    else:
        env.physics.qpos[2, 0] = math.nan
    with caplog.at_level(logging.WARNING):
        step = env.step(random_actions(1, 4)[0])
    assert step.truncated.tolist() == [False, False, True, False]
    assert not step.terminated.any()
    assert step.reward[2] == 0
    assert torch.equal(step.next_obs[2, :8], obs_before[2])  # the last that was sound
    assert step.obs.isfinite().all()
    assert step.obs[2, :8].abs().max() <= 0.1
    assert env.num_diverged == 1
    message = [record.getMessage() for record in caplog.records if record.name == "envs.locomotion.divergence"]
    assert len(message) == 1
    assert "half_cheetah_vel: the simulation of row 2 diverged at step 4" in message[0]
    assert "velocity=1.5" in message[0]

    steps = rollout(env, random_actions(10, 4))  # training goes on: others end after 6 more, row 2 after its own 10
    assert steps[5].truncated.tolist() == [True, True, False, True]
    assert steps[9].truncated.tolist() == [False, False, True, False]
    assert env.num_diverged == 1


def test_warnings_of_the_engine_leave_no_file(tmp_path: Path) -> None:
    code = (
        "import torch\n"
        "from envs.locomotion.half_cheetah import HalfCheetahVel\n"
        "generator = torch.Generator().manual_seed(0)\n"
        "env = HalfCheetahVel().make_env(32, generator)\n"
        "env.reset(HalfCheetahVel().sample(32, 'train', generator))\n"
        "env.physics.qvel[::2] = 1e9\n"
        "env.step(torch.zeros(32, 6))\n"
        "print(env.num_diverged)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert result.stdout.strip() == "16", result.stderr
    assert list(tmp_path.iterdir()) == []


# Threads and processes


def test_threads_suit_the_machine_and_the_rows(tmp_path: Path) -> None:
    assert [suitable_threads(rows) for rows in (1, 8, 15)] == [1, 1, 1]
    assert suitable_threads(10_000) == available_cpus()
    assert 1 <= available_cpus() <= (os.cpu_count() or 1)
    assert _cgroup_cpus(tmp_path) is None
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert _cgroup_cpus(tmp_path) is None
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert _cgroup_cpus(tmp_path) == 1.5
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert _cgroup_cpus(tmp_path) is None
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("300000\n")
    assert _cgroup_cpus(tmp_path) == 3.0


def test_pickling_says_why_not() -> None:
    with pytest.raises(TypeError, match="native threads and cannot be pickled"):
        pickle.dumps(HalfCheetahVel().make_env(1, generator()).physics)


def test_torchs_threads_are_left_alone() -> None:
    before = torch.get_num_threads()
    env = HalfCheetahVel().make_env(16, generator())
    env.reset(HalfCheetahVel().sample(4, "train", generator()))
    env.step(torch.zeros(16, 6))
    assert torch.get_num_threads() == before
