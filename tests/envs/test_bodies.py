"""The robots' bodies against Gymnasium's v5: every number of the model, every step, on any threads and any batch."""

from __future__ import annotations

from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from gymnasium.envs import mujoco as theirs_folder
from torch import Tensor

from envs.check import check_family
from envs.locomotion.ant import AntDir, AntGoal, AntVel
from envs.locomotion.dynamics import AntDynamics, HumanoidDynamics
from envs.locomotion.humanoid import HumanoidDir
from envs.locomotion.robots import ANT, HALF_CHEETAH, HOPPER, HUMANOID, SWIMMER, WALKER2D, Robot
from envs.locomotion.swimmer import SwimmerVel
from envs.locomotion.tasks import HeadingTasks, InertiaTasks, VelocityTasks
from envs.locomotion.walkers import HopperRandParams, Walker2dRandParams
from envs.simulators import make_physics
from envs.simulators.cpu import CpuPhysics
from envs.simulators.state import State
from metarl.records import Record

ROBOTS = {"half_cheetah": HALF_CHEETAH, "ant": ANT, "humanoid": HUMANOID, "walker2d": WALKER2D, "hopper": HOPPER}
ROBOTS["swimmer"] = SWIMMER
ASSETS = f"{theirs_folder.__path__[0]}/assets"

LOOKS = ("mat_", "tex_", "light_", "name", "geom_rgba", "geom_matid", "signature", "cam_")
UNUSED = ("numeric_", "key_", "geom_user", "nnumeric", "nkey", "nuser_geom", "ncam")  # the first two empty in ours
SIZES = ("nmat", "ntex", "ntexdata", "nnames", "nnames_map", "narena", "nbuffer")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model_of(path: Any) -> Any:
    return mujoco.MjModel.from_xml_path(str(path))  # type: ignore[attr-defined]


def random_actions(robot: Robot, num_steps: int, num_rows: int, seed: int = 0) -> Tensor:
    unit = 2 * torch.rand(num_steps, num_rows, robot.num_actions, generator=generator(seed)) - 1
    return robot.action_limit * unit


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("ant", "ant"),
        ("humanoid", "humanoid"),
        ("walker2d", "walker2d_v5"),
        ("hopper", "hopper"),
        ("swimmer", "swimmer"),
    ],
)
def test_bodies_have_gymnasiums_mechanics(name: str, file: str) -> None:
    """Every numeric field of the compiled models is equal to the last bit, but for looks, names and what is unused."""
    ours, theirs = model_of(ROBOTS[name].body), model_of(f"{ASSETS}/{file}.xml")
    compared = 0
    for field in dir(theirs):
        value = getattr(theirs, field)
        if field.startswith(("_", *LOOKS, *UNUSED)) or field in SIZES:
            continue
        if not isinstance(value, np.ndarray | int | float):
            continue
        assert np.array_equal(value, getattr(ours, field)), field
        compared += isinstance(value, np.ndarray) and value.size > 0
    assert compared > 100
    for option in dir(theirs.opt):
        value = getattr(theirs.opt, option)
        if not option.startswith("_") and isinstance(value, np.ndarray | int | float):
            assert np.array_equal(value, getattr(ours.opt, option)), option


@pytest.mark.parametrize("name", ROBOTS)
def test_the_sizes_that_families_declare_are_the_bodies(name: str) -> None:
    robot, model = ROBOTS[name], model_of(ROBOTS[name].body)
    assert (robot.num_positions, robot.num_velocities, robot.num_actions) == (model.nq, model.nv, model.nu)
    assert np.allclose(np.abs(model.actuator_ctrlrange), robot.action_limit)


@pytest.mark.parametrize("name", ROBOTS)
def test_solving_islands_together_changes_nothing(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Our switched off flag is verified to the last bit for each body, in contact with the floor; nothing warns."""
    robot = ROBOTS[name]
    physics = CpuPhysics(robot.body, 2, num_threads=1)
    model = model_of(robot.body)
    disabled = mujoco.mjtDisableBit.mjDSBL_ISLAND  # type: ignore[attr-defined]
    assert physics.model.opt.disableflags & disabled
    assert not model.opt.disableflags & disabled
    qpos = physics.initial_qpos + robot.noise.scale * torch.rand(2, model.nq, generator=generator()).double()
    physics.reset(qpos, torch.zeros(2, model.nv).double())
    actions = random_actions(robot, 40, 2)
    touched = 0
    datas = [mujoco.MjData(model) for _ in range(2)]  # type: ignore[attr-defined]
    for row, data in enumerate(datas):
        data.qpos[:] = qpos[row]
        mujoco.mj_forward(model, data)  # type: ignore[attr-defined]
    for action in actions.double():
        physics.step(action, 4)
        for row, data in enumerate(datas):
            data.ctrl[:] = action[row]
            for _ in range(4):
                mujoco.mj_step(model, data)  # type: ignore[attr-defined]
            touched += data.ncon
            assert np.array_equal(data.qpos, physics.qpos[row])
            assert np.array_equal(data.qvel, physics.qvel[row])
    assert touched or name == "swimmer"
    assert "WARNING" not in "".join(capfd.readouterr())


# Gymnasium's environments, step for step


def ones(family: Any) -> InertiaTasks:
    tasks = family.sample(1, "train", generator())
    return tasks.map(torch.ones_like)


EAST = HeadingTasks(torch.tensor([[1.0, 0.0]]))
PLAIN: dict[str, Any] = {"include_cfrc_ext_in_observation": False, "contact_cost_weight": 0.0}
WALKER, HOP = Walker2dRandParams(frame_skip=4, horizon=1000), HopperRandParams(frame_skip=4, horizon=1000)
SAME: dict[str, tuple[str, dict[str, Any], Any, Record]] = {
    "ant": ("Ant-v5", PLAIN, AntDir(horizon=1000), EAST),
    "humanoid": ("Humanoid-v5", PLAIN, HumanoidDir(horizon=1000), EAST),
    "walker2d": ("Walker2d-v5", {}, WALKER, ones(WALKER)),
    "hopper": ("Hopper-v5", {}, HOP, ones(HOP)),
    # v* = 0: the reward is -|v| where Gymnasium's is v
    "swimmer": ("Swimmer-v5", {}, SwimmerVel(horizon=1000), VelocityTasks(torch.zeros(1))),
}


CONTACTS: dict[str, tuple[str, dict[str, Any], Any, Record]] = {
    "ant_contacts": ("Ant-v5", {}, AntDir(horizon=1000, contact_forces=True), EAST),
    "humanoid_contacts": ("Humanoid-v5", {}, HumanoidDir(horizon=1000, contact_forces=True), EAST),
}


@pytest.mark.parametrize("name", SAME | CONTACTS)
@pytest.mark.parametrize("seed", [0, 1])
def test_steps_equal_gymnasiums(name: str, seed: int) -> None:
    """States, ends and observations to the last bit (theirs rounded to float32), rewards to float32's precision.

    As `gymnasium.utils.env_match` does it, but from a state that both are put into: our noise has another generator.
    """
    identity, arguments, family, tasks = (SAME | CONTACTS)[name]
    theirs = gymnasium.make(identity, max_episode_steps=-1, **arguments)
    env, ended, touched = family.make_env(1, generator()), 0, 0
    env.reset(tasks)
    for episode in range(3):
        obs, _ = theirs.reset(seed=10 * seed + episode)
        qpos, qvel = theirs.unwrapped.data.qpos, theirs.unwrapped.data.qvel  # type: ignore[attr-defined]
        env.physics.reset(torch.from_numpy(qpos.copy())[None], torch.from_numpy(qvel.copy())[None])
        ours = family.observation(env._state, tasks)
        assert np.array_equal(ours[0], obs.astype(np.float32))
        for action in random_actions(family.robot, 60, 1, seed):
            obs, reward, terminated, _, info = theirs.step(action[0].numpy())
            step = env.step(action)
            assert np.array_equal(step.next_obs[0], obs.astype(np.float32))
            expected = reward if name != "swimmer" else -abs(info["x_velocity"]) + info["reward_ctrl"]
            assert float(step.reward) == pytest.approx(expected, rel=1e-6, abs=2e-6)
            assert bool(step.terminated) == terminated
            if terminated:
                ended += 1
                break
            assert np.array_equal(theirs.unwrapped.data.qpos, env.physics.qpos[0])  # type: ignore[attr-defined]
            touched += name in CONTACTS and info["reward_contact"] < 0
    assert ended or name not in ("walker2d", "hopper", "humanoid")
    assert touched > 10 or name not in CONTACTS
    theirs.close()


@pytest.mark.parametrize(
    ("family", "size"),
    [
        (AntGoal(horizon=7, contact_forces=True), 29 + 78),
        (AntDynamics(horizon=7, contact_forces=True), 27 + 78),  # rows have models of their own
        (HumanoidDynamics(horizon=5, contact_forces=True, vary=("mass",)), 270 + 78),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_families_with_contact_forces_obey_the_laws(family: Any, size: int) -> None:
    assert family.observation_space.shape == (size,)
    check_family(family)


def test_contact_forces_start_at_zero_and_cost_by_hand() -> None:
    family = AntVel(horizon=30, contact_forces=True, control_cost=0.0)
    env = family.make_env(3, generator())
    tasks = family.sample(3, "train", generator())
    assert not env.reset(tasks).obs[:, 27:].any()
    plain, costs = AntVel(horizon=30, control_cost=0.0), []
    for index in range(30):
        step = env.step(torch.zeros(3, 8))
        assert not step.obs[step.episode_end, 27:].any()
        if index == 28:
            before, after = State(xpos=torch.zeros(3, 14, 3)), env._state
            action = torch.zeros(3, 8)
            costs = plain.reward(before, after, action, tasks, 1.0) - family.reward(before, after, action, tasks, 1.0)
            assert costs == pytest.approx(5e-4 * step.next_obs[:, 27:].square().sum(1), abs=1e-6)
    assert min(costs) > 0  # it lies on the floor


def test_contact_forces_are_for_the_cpu() -> None:
    with pytest.raises(ValueError, match=r"contact forces \(MuJoCo's cfrc_ext\) are not computed by mujoco_warp"):
        make_physics(ANT.body, 2, torch.device("cuda"), contact_forces=True)


@pytest.mark.parametrize("name", [name for name in SAME if name != "swimmer"])
def test_starts_have_gymnasiums_noise(name: str) -> None:
    """The same limits, the same kind: uniform numbers do not leave ± scale, Gaussian ones do."""
    _, _, family, tasks = SAME[name]
    env = family.make_env(400, generator())
    env.reset(tasks)
    noise, scale = env.physics.qpos - env.physics.initial_qpos, family.robot.noise.scale
    theirs = gymnasium.make(SAME[name][0])
    assert theirs.unwrapped._reset_noise_scale == scale  # type: ignore[attr-defined]
    assert 0.99 * scale < noise.abs().max() <= scale
    largest = float(env.physics.qvel.abs().max())
    assert largest > 2 * scale if name == "ant" else 0.99 * scale < largest <= scale
    theirs.close()


# Threads and batches


@pytest.mark.parametrize("name", ROBOTS)
def test_threads_and_the_split_of_the_batch_change_nothing(name: str) -> None:
    """Six rows on one thread, on two, and as batches of 1, 2 and 3: equal to the last bit, resets and all."""
    robot = ROBOTS[name]
    actions = random_actions(robot, 24, 6).double()
    draw = torch.rand(6, robot.num_positions, generator=generator(), dtype=torch.float64)

    def rollout(rows: slice, num_threads: int) -> tuple[Tensor, ...]:
        count = len(range(6)[rows])
        physics = CpuPhysics(robot.body, count, num_threads)
        start = physics.initial_qpos + 0.01 * draw[rows], torch.zeros(count, robot.num_velocities).double()
        physics.reset(*start)
        state, found = State.of(physics, ("subtree_com", "qfrc_actuator")), []
        for index, action in enumerate(actions[:, rows]):
            if index == 12:
                again = (torch.arange(6) % 2 == 0)[rows]
                physics.reset(*start, again)
            physics.step(action, robot.frame_skip)
            found.append(torch.cat([value.flatten(1) for value in vars(state).values()], dim=1))
        return tuple(torch.stack(found).unbind(1))

    expected = rollout(slice(0, 6), 1)
    for parts in ([slice(0, 6)], [slice(0, 1), slice(1, 3), slice(3, 6)]):
        actual = [row for part in parts for row in rollout(part, 2)]
        assert all(map(torch.equal, expected, actual))


def test_derived_fields_are_current_after_a_reset_and_a_substep_behind_after_a_step() -> None:
    physics = CpuPhysics(ANT.body, 3, num_threads=1)
    place = physics.initial_qpos.repeat(3, 1)
    place[:, 0] = torch.tensor([1.0, 2.0, 3.0])
    state = State.of(physics, ("xpos", "subtree_com"))
    physics.reset(place, torch.zeros(3, 14).double())
    assert torch.equal(state.xpos[:, 1], place[:, :3])
    before = state.qpos[:, :3].clone()
    physics.step(torch.zeros(3, 8).double(), 1)
    assert not torch.equal(state.qpos[:, :3], before)
    assert (state.xpos[:, 1] - before).abs().max() < (state.qpos[:, :3] - before).abs().max()
    behind = state.xpos.clone()
    physics.reset(place + 1, torch.zeros(3, 14).double(), torch.tensor([False, True, False]))
    assert torch.equal(state.xpos[[0, 2]], behind[[0, 2]])
    assert torch.equal(state.xpos[1, 1], place[1, :3] + 1)
    with pytest.raises(ValueError, match="'xpoz' is not a field of MuJoCo's data: did you mean 'xpos'"):
        State.of(physics, ("xpoz",))
    with pytest.raises(AttributeError, match=r"no field 'xmat': it holds qpos, qvel, xpos, subtree_com"):
        _ = state.xmat
