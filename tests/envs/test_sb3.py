"""The bridge to Stable-Baselines3: what its algorithms expect of a VecEnv."""

import json
import statistics
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.wrappers import TimeLimit
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecMonitor

from envs.bridges.sb3_vec_env import as_vec_env
from envs.catalog import make
from envs.external.gymnasium_family import GymnasiumFamily
from envs.samplers import Choice, Uniform
from envs.torch_families.gridworld import GridNavi, GridTasks
from envs.wrappers import ActionRepeat, Delayed, Noisy, TimeAware
from experiments.benchmarks import sb3 as benchmark


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


@pytest.mark.parametrize(
    ("name", "horizon", "ends"),
    [
        ("point_navigation", 5, {"truncated"}),
        ("grid_navi", 4, {"truncated"}),  # discrete actions
        ("half_cheetah_vel", 3, {"truncated"}),
        ("hopper_rand_params", 14, {"terminated", "truncated"}),  # falls early
    ],
)
def test_it_says_what_the_family_says(name, horizon, ends):
    """Against the family's own environment with the same random numbers and actions."""
    family = make(name, horizon=horizon)
    tasks = family.sample(2, "train", torch.Generator().manual_seed(0))
    bridge = as_vec_env(family, tasks, 4, seed=7)
    known = family.make_env(4, torch.Generator().manual_seed(7))
    assert np.array_equal(bridge.reset(), known.reset(tasks).obs)
    bridge.action_space.seed(0)
    seen = set()
    for _ in range(3 * horizon):
        action = np.stack([bridge.action_space.sample() for _ in range(4)])
        obs, reward, ended, reports = bridge.step(action)
        step = known.step(torch.as_tensor(action))
        assert np.array_equal(np.asarray(obs), step.obs)
        assert np.array_equal(reward, step.reward)
        assert np.array_equal(ended, step.episode_end)
        for row, report in enumerate(reports):
            assert ("terminal_observation" in report) == bool(step.episode_end[row])
            assert report["TimeLimit.truncated"] is bool(step.truncated[row])
            if step.episode_end[row]:
                assert np.array_equal(report["terminal_observation"], step.next_obs[row])
                seen.add("terminated" if step.terminated[row] else "truncated")
    assert seen == ends


def quiet(algorithm):
    """With a logger of no outputs: SB3's own makes a folder for each call of `learn`."""
    algorithm.set_logger(Logger(None, []))
    return algorithm


class _Rewards(BaseCallback):
    """Keeps the rewards that the environment gave, before PPO adds to them."""

    def __init__(self):
        super().__init__()
        self.given = []

    def _on_step(self):
        self.given.append(self.locals["rewards"].copy())
        return True


@pytest.mark.parametrize("visible", [False, True])
def test_ppo_bootstraps_from_where_the_time_limit_came(visible, monkeypatch):
    """What it adds to rewards is the critic's value of the family's own `next_obs`, there and nowhere else."""
    env, steps, rewards = vec_env(visible=visible), [], _Rewards()
    take = env._env.step
    monkeypatch.setattr(env._env, "step", lambda action: steps.append(take(action)) or steps[-1])
    # Without a learning rate the critic is still the one that bootstrapped.
    ppo = PPO(
        "MlpPolicy", env, n_steps=8, batch_size=32, n_epochs=1, gamma=0.9, learning_rate=0.0, device="cpu", seed=0
    )
    quiet(ppo).learn(32, callback=rewards)
    last = steps[4].next_obs
    if visible:
        last = torch.cat([last, torch.as_tensor(env.reset()[:, last.shape[1] :])], dim=1)
    with torch.no_grad():
        value = ppo.policy.predict_values(last)[:, 0]
    added = ppo.rollout_buffer.rewards - np.stack(rewards.given)
    assert added[4] == pytest.approx(0.9 * value.numpy(), abs=1e-5)
    assert np.abs(added[4]).min() > 1e-4
    assert not added[[0, 1, 2, 3, 5, 6, 7]].any()


def test_a_single_task_fills_all_rows():
    family = make("point_navigation", horizon=3)
    task = family.sample(1, "test", torch.Generator().manual_seed(0))
    assert as_vec_env(family, task).num_envs == 1
    env = as_vec_env(family, task, 3, visible=True)
    size = family.observation_space.shape[0]
    assert len(np.unique(env.reset()[:, size:], axis=0)) == 1


def test_tasks_that_are_drawn_change_at_resets_only():
    env = as_vec_env(make("point_navigation", horizon=2), 3, 6, split="test", visible=True, seed=1)
    size = env.family.observation_space.shape[0]
    shown = env.reset()[:, size:]
    goals = env.tasks
    assert np.array_equal(shown[::2], shown[1::2])
    assert len(np.unique(shown, axis=0)) == 3
    for _ in range(5):  # two ends of episodes
        obs = env.step(np.zeros((6, 2), dtype=np.float32))[0]
        assert np.array_equal(np.asarray(obs)[:, size:], shown)
    assert env.tasks is goals
    assert not np.isin(env.reset()[:, size : size + 2], shown).any()  # the goals; all tasks have no wind


def test_drawn_tasks_come_from_the_split_and_the_seed():
    family = GridNavi()
    ood, train = as_vec_env(family, 8, split="ood"), as_vec_env(family, 8)
    for _ in range(3):
        for env, inside in ((ood, False), (train, True)):
            env.reset()
            assert isinstance(env.tasks, GridTasks)
            assert (family.in_training_range(env.tasks) == inside).all()
    drawn = []
    for _ in range(2):
        train.seed(5)
        train.reset()
        drawn.append(vars(train.tasks)["goal"])
    assert torch.equal(*drawn)


RESTARTED = [
    make("grid_navi", horizon=3),
    make("hopper_rand_params", horizon=14),  # falls early, and its physics differ
    make("half_cheetah_dynamics", horizon=3),  # whose rows have models of their own
    GymnasiumFamily("Pendulum-v1", {"g": Uniform(5, 15)}, horizon=3, num_workers=1),
    TimeAware(ActionRepeat(Noisy(make("semicircle", horizon=6), obs_noise=Uniform(0, 1)), 2)),
    Delayed(make("hopper_rand_params", horizon=14), obs_delay=Choice([0, 1, 4]), action_delay=Choice([0, 2])),
]


@pytest.mark.parametrize("family", RESTARTED, ids=lambda family: family.name)
def test_fresh_tasks_come_where_an_episode_ends_and_nowhere_else(family):
    env = as_vec_env(family, 5, visible=True, fresh=True, seed=2)
    size = family.observation_space.shape[0]
    shown = env.reset()[:, size:]
    env.action_space.seed(0)
    ends = 0
    for _ in range(2 * family.horizon):
        obs, _, ended, reports = env.step(np.stack([env.action_space.sample() for _ in range(5)]))
        assert np.array_equal(np.asarray(obs)[~ended, size:], shown[~ended])
        for row in np.flatnonzero(ended):
            assert np.array_equal(reports[row]["terminal_observation"][size:], shown[row])  # of the task that ended
        ends += ended.sum()
        shown = np.asarray(obs)[:, size:]
        numbers = np.concatenate([value.reshape(5, -1).numpy() for value in vars(env.tasks).values()], axis=1)
        assert np.array_equal(numbers.astype(np.float32), shown)
        assert family.in_training_range(env.tasks).all()
    assert ends >= 10
    assert len(np.unique(shown, axis=0)) >= 3


@pytest.mark.parametrize(
    "family", [family for family in RESTARTED if "noisy" not in family.name], ids=lambda family: family.name
)
def test_rows_that_go_on_do_not_notice_a_restart(family):
    """What they observe with the same actions, once beside rows that restart and once not."""
    seen = []
    for restart in (False, True):
        env = family.make_env(4, torch.Generator().manual_seed(0))
        tasks, others = (family.sample(4, "train", torch.Generator().manual_seed(seed)) for seed in (1, 2))
        env.reset(tasks)
        source = torch.Generator().manual_seed(3)
        actions = torch.rand(2, 4, *env.action_space.shape, generator=source)
        if not env.action_space.shape:
            actions = (actions * int(env.action_space.n)).long()
        env.step(actions[0])
        if restart:
            first = env.restart(others, torch.tensor([False, True, False, True]))
            assert first.shape == (4, *env.observation_space.shape)
        seen.append(env.step(actions[1]).obs)
    assert torch.equal(seen[0][::2], seen[1][::2])
    assert not torch.equal(seen[0][1::2], seen[1][1::2])


def test_a_restarted_row_has_its_new_tasks_physics():
    env = as_vec_env(make("hopper_rand_params", horizon=9), 3, fresh=True)
    env.reset()
    old = vars(env.tasks)["body_mass"]
    for _ in range(9):
        env.step(np.zeros((3, 3), dtype=np.float32))
    new = vars(env.tasks)["body_mass"]
    assert not torch.isclose(old, new).any()
    for row in range(3):
        model, _ = env._env.copy_row(row)
        assert model.body_mass[1:] / hopper_mass()[1:] == pytest.approx(new[row].numpy())


def test_a_restarted_row_has_its_new_tasks_reward():
    family = make("semicircle", horizon=2, dense=True)
    env, rewards = as_vec_env(family, 5, fresh=True), []
    env.reset()
    for index in range(4):
        tasks, action = env.tasks, np.full((5, 2), 0.1, dtype=np.float32)
        rewards.append(env.step(action)[1])
        if index % 2 == 0:  # the first step of an episode, which always starts in the same place
            reference = family.make_env(5, torch.Generator())
            reference.reset(tasks)
            assert np.array_equal(rewards[-1], reference.step(torch.as_tensor(action)).reward)
    assert not np.isclose(rewards[0], rewards[2]).any()


def hopper_mass():
    env: Any = make("hopper_rand_params").make_env(1, torch.Generator())
    return env.physics.field("body_mass").numpy()


@pytest.mark.parametrize(
    ("tasks", "num_envs"),
    [(2, 4), (make("grid_navi").sample(2, "train", torch.Generator()), None)],
)
def test_fresh_tasks_are_drawn_one_a_row(tasks, num_envs):
    with pytest.raises(ValueError, match="fresh is True; tasks must then be a number"):
        as_vec_env(make("grid_navi"), tasks, num_envs, fresh=True)


def test_each_call_of_learn_draws_afresh_unless_it_continues():
    env = as_vec_env(make("point_navigation", horizon=4), 4)
    ppo = quiet(PPO("MlpPolicy", env, n_steps=8, batch_size=32, n_epochs=1, device="cpu", seed=0))
    first = ppo.learn(32) and env.tasks
    ppo.learn(32, reset_num_timesteps=False)
    assert env.tasks is first
    ppo.learn(32)
    assert env.tasks is not first


def test_attributes_and_methods_are_those_of_all_rows():
    env = vec_env()
    assert env.get_attr("horizon") == [5] * 4
    assert env.get_attr("render_mode", indices=[0, 2]) == [None, None]
    assert env.has_attr("horizon")
    assert not env.has_attr("nothing_of_the_kind")
    other = env.family.sample(4, "train", torch.Generator().manual_seed(1))
    env.set_attr("tasks", other)
    assert env.get_attr("tasks", indices=1) == [other]
    with pytest.raises(ValueError, match=r"indices is \[1\]; must be None"):
        env.set_attr("tasks", other, indices=[1])
    assert env.env_method("in_training_range", other, indices=[0, 3])[1].tolist() == [True] * 4
    assert env.env_is_wrapped(TimeLimit) == [False] * 4


def test_closing_closes_what_holds_more_than_memory(monkeypatch):
    family = make("half_cheetah_vel", horizon=2)
    env = as_vec_env(family, 2)
    closed = []
    monkeypatch.setattr(type(env._env), "close", lambda self: closed.append(self))
    env.close()
    assert closed == [env._env]
    vec_env().close()  # holds nothing


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
    with pytest.raises(ValueError, match="num_envs is 3; must be a multiple of the 2 tasks"):
        vec_env(num_envs=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tasks": 0}, "tasks is 0; must be at least 1"),
        ({"tasks": 2, "num_envs": 0}, "num_envs is 0; must be a multiple of the 2 tasks"),
        ({"tasks": 2, "split": "trian"}, "split is 'trian'"),
    ],
)
def test_a_wrong_argument_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        as_vec_env(make("point_navigation"), **arguments)


def test_given_tasks_have_no_split():
    family = make("point_navigation")
    tasks = family.sample(2, "train", torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="split is 'test'; must be None"):
        as_vec_env(family, tasks, split="test")


@pytest.mark.parametrize("visible", [False, True])
def test_ppo_and_sac_train(visible):
    env = VecMonitor(vec_env(visible=visible))
    ppo = PPO("MlpPolicy", env, n_steps=16, batch_size=32, n_epochs=1, device="cpu", seed=0)
    quiet(ppo).learn(64)
    assert ppo.ep_info_buffer
    assert ppo.ep_info_buffer[0]["l"] == 5
    quiet(SAC("MlpPolicy", env, learning_starts=8, batch_size=8, device="cpu", seed=0)).learn(40)


@pytest.mark.slow
def test_the_benchmark_sets_collection_and_learning_against_worker_processes(monkeypatch, capsys):
    threads = torch.get_num_threads()
    settings = benchmark.Settings(num_envs=2, n_steps=32, num_rollouts=1, num_rounds=2)
    result = benchmark.run(settings)
    assert torch.get_num_threads() == threads
    speeds = result.rounds
    assert set(speeds) == {f"{what}_{name}" for what in ("collect", "learn") for name in ("bridge", "subproc")}
    for name in ("bridge", "subproc"):  # collection is a part of learning
        assert all(c > n > 0 for c, n in zip(speeds[f"collect_{name}"], speeds[f"learn_{name}"], strict=True))
    name = "collect_bridge / collect_subproc"
    (ours, other), (theirs, another) = speeds["collect_bridge"], speeds["collect_subproc"]
    assert result.ratios[name] == pytest.approx(statistics.median([ours / theirs, other / another]))
    assert result.as_json()["targets"][name]["reached"] == (result.ratios[name] >= 3.0)
    monkeypatch.setattr(benchmark, "run", lambda: result)
    benchmark.main(json=True)
    assert json.loads(capsys.readouterr().out)["ratios"] == dict(result.ratios)
    benchmark.main()
    assert name in capsys.readouterr().out


def test_a_wrong_size_of_the_benchmark_is_named():
    with pytest.raises(ValueError, match="n_steps of the sb3 benchmark is 0"):
        benchmark.Settings(n_steps=0)
