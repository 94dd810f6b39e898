"""The Gymnasium bridge: what third parties' checkers, vector wrappers and renderers expect of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from stable_baselines3.common.env_checker import check_env as check_env_of_sb3

import envs
from envs.bridges.gymnasium_env import GymnasiumEnv, GymnasiumVectorEnv
from envs.catalog import FAMILIES
from envs.torch_families.bandits import BernoulliBandit
from envs.torch_families.gridworld import GridNavi

ROOT = Path(str(envs.__file__)).parents[1]
IDS = [f"envs:metarl/{path.split(':')[1]}-v0" for path in FAMILIES.values()]
CHEETAH = "envs:metarl/HalfCheetahVel-v0"


def run_python(code: str, directory: Path, *path: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a directory, with folders at the head of the import path."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=60)


# The checker remarks that positions and velocities are unbounded; they are, by definition of the family.
@pytest.mark.filterwarnings("ignore:.*Box observation space (min|max)imum value is -?infinity.*")
@pytest.mark.parametrize("environment", IDS)
def test_gymnasium_accepts_every_family(environment: str) -> None:
    env = gymnasium.make(environment)
    check_env(env.unwrapped, skip_render_check=True)
    env.close()


@pytest.mark.parametrize("environment", IDS)
def test_stable_baselines3_accepts_every_family(environment: str) -> None:
    env = gymnasium.make(environment)
    check_env_of_sb3(env.unwrapped, warn=False)
    env.close()


@pytest.mark.parametrize("environment", IDS)
def test_every_family_steps_as_a_vector(environment: str) -> None:
    env = gymnasium.make_vec(environment, num_envs=3)
    env.action_space.seed(0)
    obs, _ = env.reset(seed=0)
    assert obs in env.observation_space
    for _ in range(3):
        obs, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        assert obs in env.observation_space
        assert reward.shape == terminated.shape == truncated.shape == (3,)
    env.close()


def test_importing_envs_registers_the_catalog_and_stays_light() -> None:
    code = (
        "import envs, gymnasium, sys\n"
        "print(sum(name.startswith('metarl/') for name in gymnasium.registry))\n"
        "print([name for name in ('torch', 'mujoco', 'stable_baselines3') if name in sys.modules])"
    )
    result = run_python(code, ROOT)
    assert result.stdout.split("\n")[:2] == [str(len(FAMILIES)), "[]"], result.stderr


def test_the_horizon_truncates_once() -> None:
    env = gymnasium.make(CHEETAH, horizon=4)
    wrapper = env
    while isinstance(wrapper, gymnasium.Wrapper):
        assert not isinstance(wrapper, gymnasium.wrappers.TimeLimit)
        wrapper = wrapper.env
    env.reset(seed=0)
    ends = [env.step(np.zeros(6, dtype=np.float32))[2:4] for _ in range(4)]
    assert ends == [(False, False)] * 3 + [(False, True)]
    with pytest.raises(gymnasium.error.ResetNeeded, match="reset first"):
        env.step(np.zeros(6, dtype=np.float32))
    env.close()


def test_the_task_is_the_given_one() -> None:
    env = gymnasium.make(CHEETAH, task={"velocity": 1.5})
    for _ in range(2):
        _, info = env.reset()
        assert info["task"]["velocity"] == 1.5
    _, info = env.reset(options={"task": {"velocity": 2.5}})
    assert info["task"]["velocity"] == 2.5
    x_before = env.unwrapped._env.physics.qpos[0, 0].item()  # type: ignore[attr-defined]
    _, reward, *_ = env.step(np.full(6, 0.5, dtype=np.float32))
    velocity = (env.unwrapped._env.physics.qpos[0, 0].item() - x_before) / 0.05  # type: ignore[attr-defined]
    assert reward == pytest.approx(-abs(velocity - 2.5) - 0.05 * 6 * 0.25, abs=1e-5)
    assert type(reward) is float
    env.close()


def test_tasks_are_sampled_at_each_reset_from_the_seed() -> None:
    def velocities(seed: int) -> list[float]:
        env = gymnasium.make(CHEETAH)
        first = env.reset(seed=seed)[1]["task"]["velocity"]
        result = [float(first)] + [float(env.reset()[1]["task"]["velocity"]) for _ in range(3)]
        env.close()
        return result

    assert velocities(1) == velocities(1)
    assert velocities(1) != velocities(2)
    assert len(set(velocities(1))) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": {"speed": 1.0}}, "the field 'speed'; must be one of velocity"),
        ({"task": {}}, "lacks the field 'velocity'"),
        ({"task": {"velocity": [1.0, 2.0]}}, r"velocity is \[1.0, 2.0\]"),
        ({"task": {"velocity": float("nan")}}, "velocity is nan"),
        ({"task": {"velocity": "fast"}}, "velocity is 'fast'; must be a number"),
        ({"task": 1.5}, "task is 1.5; must be a dict"),
        ({"speed": 1.0}, "half_cheetah_vel has no field 'speed'"),
        ({"render_mode": "human_list"}, "render_mode is 'human_list'"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GymnasiumEnv("half_cheetah_vel", **arguments)


def test_wrong_options_are_named() -> None:
    env = GymnasiumVectorEnv("half_cheetah_vel", num_envs=2)
    with pytest.raises(ValueError, match="options has the key 'tasks'; must have only 'task'"):
        env.reset(options={"tasks": {}})
    with pytest.raises(ValueError, match="seed is a list"):
        env.reset(seed=[1, 2])
    env.close()


def test_the_vector_autoresets_in_the_same_step() -> None:
    env = gymnasium.make_vec(CHEETAH, num_envs=8, horizon=3)
    assert isinstance(env, GymnasiumVectorEnv)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    first, infos = env.reset(seed=0)
    assert infos["task"]["velocity"].shape == (8,)
    env.action_space.seed(0)
    for _ in range(2):
        obs, _, _, truncated, infos = env.step(env.action_space.sample())
        assert not truncated.any()
        assert set(infos) == {"velocity_error", "_velocity_error"}
        assert infos["_velocity_error"].all()
    obs, _, terminated, truncated, infos = env.step(env.action_space.sample())
    assert truncated.all()
    assert not terminated.any()
    assert infos["_final_obs"].all()
    final_obs = np.stack(list(infos["final_obs"]))
    assert final_obs.shape == obs.shape
    # After a reset, positions are within the noise of 0.1; after three random steps the velocities are far from it.
    assert np.abs(obs[:, :8]).max() <= 0.1 < np.abs(first - final_obs).max()
    env.close()


def test_vector_and_single_agree() -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (6, 1, 6)).astype(np.float32)
    single, vector = gymnasium.make(CHEETAH, horizon=5), gymnasium.make_vec(CHEETAH, num_envs=1, horizon=5)
    obs, _ = single.reset(seed=3)
    obs_of_vector, _ = vector.reset(seed=3)
    assert np.array_equal(obs, obs_of_vector[0])
    for action in actions[:4]:
        expected, actual = single.step(action[0]), vector.step(action)
        assert np.array_equal(expected[0], actual[0][0])
        assert expected[1] == actual[1][0]
    expected, actual = single.step(actions[4][0]), vector.step(actions[4])
    assert np.array_equal(expected[0], actual[4]["final_obs"][0])
    single.close()
    vector.close()


def test_gymnasiums_own_vector_wrapper_counts_returns() -> None:
    env = RecordEpisodeStatistics(gymnasium.make_vec("envs:metarl/GridNavi-v0", num_envs=4, task={"goal": 24}))
    env.reset(seed=0)
    for _ in range(14):
        assert "episode" not in env.step(np.zeros(4, dtype=np.int64))[4]
    _, _, _, truncated, infos = env.step(np.zeros(4, dtype=np.int64))
    assert truncated.all()
    assert infos["episode"]["r"] == pytest.approx([-1.5] * 4, abs=1e-5)
    assert (infos["episode"]["l"] == 15).all()
    env.close()


def test_a_family_made_elsewhere_is_accepted() -> None:
    family: Any = GridNavi()
    env = GymnasiumEnv(family, task={"goal": 16})
    assert env.reset(seed=0)[1]["task"]["goal"] == 16
    with pytest.raises(ValueError, match="horizon is given with a family"):
        GymnasiumEnv(family, horizon=3)
    unseen: Any = BernoulliBandit()
    with pytest.raises(ValueError, match="render_mode is 'rgb_array'; must be None for bernoulli_bandit"):
        GymnasiumEnv(unseen, render_mode="rgb_array")


def test_rendering_shows_the_body(tmp_path: Path) -> None:
    code = (
        "import gymnasium, numpy as np\n"
        f"env = gymnasium.make({CHEETAH!r}, render_mode='rgb_array')\n"
        "env.reset(seed=0)\n"
        "try:\n"
        "    first = env.render()\n"
        "except (ImportError, RuntimeError) as error:\n"
        "    print('no rendering here:', error)\n"
        "    raise SystemExit\n"
        "for _ in range(10):\n"
        "    env.step(env.action_space.sample())\n"
        "second = env.render()\n"
        "env.close()\n"
        "print(first.shape, first.dtype, first.std() > 1, (first != second).any())"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("MUJOCO_GL", "DISPLAY")}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    if result.stdout.startswith("no rendering here"):
        pytest.skip(result.stdout.strip())
    assert result.stdout.strip() == "(480, 480, 3) uint8 True True", result.stdout + result.stderr
    assert list(tmp_path.iterdir()) == []  # no MUJOCO_LOG.TXT


def test_packages_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    check = "from metarl._packages import require_own_packages\nrequire_own_packages()"
    assert run_python(check, ROOT).returncode == 0
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "__init__.py").touch()
    result = run_python(check, ROOT.parent, tmp_path, ROOT)
    message = result.stderr.strip().split("\n")[-1]
    assert message.startswith("ImportError: package 'agents' is imported from")
    assert str(tmp_path / "agents") in message
    assert str(ROOT / "agents") in message
    (tmp_path / "envs.py").touch()  # a single file hides a package too
    result = run_python(check, ROOT.parent, tmp_path, ROOT)
    assert str(tmp_path / "envs.py") in result.stderr
    assert str(ROOT / "envs") in result.stderr


def test_closing_a_vector_environment_closes_what_it_holds() -> None:
    env, closed = gymnasium.make_vec("envs:metarl/GridNavi-v0", num_envs=2), []
    env.unwrapped._env.close = lambda: closed.append(True)  # pyright: ignore[reportAttributeAccessIssue]
    env.close()
    env.close()
    assert closed == [True]
