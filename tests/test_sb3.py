"""The bridge to Stable-Baselines3: what its algorithms expect of a VecEnv."""

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.vec_env import VecMonitor

from envs.catalog import make
from envs.sb3 import as_vec_env


def vec_env(num_envs=4, visible=False, horizon=5):
    family = make("point_navigation", horizon=horizon)
    tasks = family.sample(2, "train", torch.Generator().manual_seed(0))
    return as_vec_env(family, tasks, num_envs, visible=visible)


def test_the_time_limit_reports_what_to_bootstrap_from():
    env = vec_env()
    obs, reports = env.reset(), []
    for index in range(5):
        obs, _, ended, reports = env.step(np.full((4, 2), 0.05, dtype=np.float32))
        assert ended.all() == (index == 4)
    assert all(report["TimeLimit.truncated"] for report in reports)
    assert not any(
        np.array_equal(report["terminal_observation"], row) for report, row in zip(reports, obs, strict=True)
    )


def test_a_visible_task_stands_behind_the_observation_in_contiguous_copies():
    hidden, visible = vec_env(), vec_env(visible=True)
    obs = visible.reset()
    size = hidden.reset().shape[1]
    assert np.array_equal(obs[0, size:], obs[1, size:])
    assert not np.array_equal(obs[1, size:], obs[2, size:])
    assert visible.observation_space.contains(obs[0])


def test_the_same_seed_gives_the_same_episode():
    env, observed = vec_env(), []
    for _ in range(2):
        env.seed(3)
        observed.append(env.reset())
    assert np.array_equal(*observed)


def test_rows_must_be_a_multiple_of_tasks():
    with pytest.raises(ValueError, match="num_envs is 3: allowed are multiples of the 2 tasks"):
        vec_env(num_envs=3)


@pytest.mark.parametrize("visible", [False, True])
def test_ppo_and_sac_train(visible):
    env = VecMonitor(vec_env(visible=visible))
    ppo = PPO("MlpPolicy", env, n_steps=16, batch_size=32, n_epochs=1, device="cpu", seed=0)
    ppo.learn(64)
    assert ppo.ep_info_buffer
    assert ppo.ep_info_buffer[0]["l"] == 5
    SAC("MlpPolicy", env, learning_starts=8, batch_size=8, device="cpu", seed=0).learn(40)
