"""Hand-computed rewards, transitions and bounds of the families that are torch programs."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from envs.catalog import FAMILIES, make
from envs.torch_families import grid_search
from envs.torch_families.bandits import BanditTasks, BernoulliBandit, GaussianBandit
from envs.torch_families.gridworld import GridNavi, GridTasks
from envs.torch_families.navigation import PointNavigation, PointTasks, Semicircle, Wind
from envs.torch_families.tabular import TabularMDP, TabularTasks, optimal_values, random_values, sample_dirichlet

TORCH_FAMILIES = [name for name, place in FAMILIES.items() if place.startswith("envs.torch_families")]
UP, RIGHT, DOWN, LEFT, STAY = range(5)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _play(family: Any, tasks: Any, actions: Tensor) -> tuple[list[Any], Any]:
    """The steps of one row per task under actions [T, ...], the same in every row, and the environment."""
    env = family.make_env(len(tasks), _generator())
    env.reset(tasks)
    return [env.step(action.expand(len(tasks), *action.shape)) for action in actions], env


# Bandits


def test_bernoulli_bandit_pays_with_the_probability_of_the_arm() -> None:
    tasks = BanditTasks(torch.tensor([[0.0, 1.0, 0.3]]))
    env = BernoulliBandit(num_arms=3).make_env(3000, _generator())
    env.reset(tasks)
    rewards = [env.step(torch.full((3000,), arm)).reward for arm in range(3)]
    assert rewards[0].sum() == 0
    assert rewards[1].sum() == 3000
    assert set(rewards[2].tolist()) == {0.0, 1.0}
    assert rewards[2].mean() == pytest.approx(0.3, abs=4 * math.sqrt(0.3 * 0.7 / 3000))


def test_gaussian_bandit_pays_mean_and_spread_of_the_arm() -> None:
    env = GaussianBandit(num_arms=2, reward_std=0.5).make_env(4000, _generator())
    env.reset(BanditTasks(torch.tensor([[-2.0, 3.0]])))
    reward = env.step(torch.ones(4000, dtype=torch.int64)).reward
    assert reward.mean() == pytest.approx(3.0, abs=4 * 0.5 / math.sqrt(4000))
    assert reward.std() == pytest.approx(0.5, rel=0.05)


def test_every_pull_is_an_episode_that_the_task_ends() -> None:
    steps, _ = _play(BernoulliBandit(num_arms=2), BanditTasks(torch.rand(3, 2)), torch.tensor([0, 1, 1]))
    for step in steps:
        assert step.terminated.all()
        assert not step.truncated.any()
        assert not step.obs.any()


def _rows(bound: torch.Tensor) -> list[list[float]]:
    """By episode and task."""
    return bound.tolist()


def _means(bound: torch.Tensor) -> list[float]:
    """By episode."""
    return bound.mean(1).tolist()


def test_bandit_bounds_by_hand() -> None:
    tasks = BanditTasks(torch.tensor([[0.2, 0.6], [1.0, 0.0]]))
    bounds = BernoulliBandit(num_arms=2).bounds(tasks, 3)
    assert _rows(bounds["oracle"]) == [pytest.approx([0.6, 1.0])] * 3
    assert _rows(bounds["random"]) == [pytest.approx([0.4, 0.5])] * 3


def test_bandit_task_distributions() -> None:
    uniform = BernoulliBandit().sample(4000, "train", _generator()).mean
    assert 0 <= uniform.min() < 0.01
    assert 0.99 < uniform.max() <= 1
    assert uniform.mean() == pytest.approx(0.5, abs=0.01)
    assert BernoulliBandit().sample(4000, "ood", _generator()).mean.max() <= 0.2
    normal = GaussianBandit().sample(4000, "test", _generator()).mean
    assert normal.mean() == pytest.approx(0, abs=0.03)
    assert normal.std() == pytest.approx(1, abs=0.03)


# Tabular MDPs


def _two_states() -> TabularTasks:
    """Action 0 stays, action 1 goes to the other state; rewards 0 and 1 in state 0, 3 and -5 in state 1."""
    transition = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]]])
    return TabularTasks(transition, torch.tensor([[[0.0, 1.0], [3.0, -5.0]]]))


def test_tabular_values_by_hand() -> None:
    tasks = _two_states()
    # One step: 1 in state 0, 3 in state 1. Two: 1 + 3 = 4, 3 + 3 = 6. Three: 1 + 6 = 7, 3 + 6 = 9.
    values, policy = optimal_values(tasks, 3)
    assert values.tolist() == [[7.0, 9.0]]
    assert policy.tolist() == [[[1, 0]], [[1, 0]], [[1, 0]]]
    # Random: one step .5 and -1; two: .5 + (.5 - 1) / 2 = .25 and -1 + (-1 + .5) / 2 = -1.25.
    assert random_values(tasks, 2).tolist() == [[0.25, -1.25]]
    bounds = TabularMDP(num_states=2, num_actions=2, horizon=3).bounds(tasks, 2)
    assert _rows(bounds["oracle"]) == [[7.0], [7.0]]


def test_tabular_episode_by_hand() -> None:
    family = TabularMDP(num_states=2, num_actions=2, horizon=3)
    tasks = _two_states().repeat_interleave(2000)
    steps, _ = _play(family, tasks, torch.tensor([1, 0, 1, 0]))
    assert [int(step.next_obs[0].argmax()) for step in steps] == [1, 1, 0, 0]
    assert [int(step.obs[0].argmax()) for step in steps] == [1, 1, 0, 0]
    assert [bool(step.truncated.all()) for step in steps] == [False, False, True, False]
    for step, expected in zip(steps, (1.0, 3.0, -5.0, 0.0), strict=True):
        assert step.reward.mean() == pytest.approx(expected, abs=4 / math.sqrt(2000))
        assert step.reward.std() == pytest.approx(1.0, rel=0.07)


def test_tabular_transitions_have_their_probabilities() -> None:
    family = TabularMDP(num_states=4, num_actions=2)
    tasks = family.sample(1, "train", _generator())
    env = family.make_env(20_000, _generator())
    env.reset(tasks)
    frequency = env.step(torch.ones(20_000, dtype=torch.int64)).next_obs.mean(dim=0)
    assert torch.allclose(frequency, tasks.transition[0, 0, 1], atol=0.015)


def test_tabular_simulation_agrees_with_the_exact_random_value() -> None:
    family = TabularMDP()
    tasks = family.sample(4000, "test", _generator())
    generator, env = _generator(1), family.make_env(4000, _generator(2))
    env.reset(tasks)
    total = sum(env.step(torch.randint(5, (4000,), generator=generator)).reward for _ in range(10))
    assert isinstance(total, Tensor)
    error = total - random_values(tasks, 10)[:, 0]
    assert error.mean() == pytest.approx(0, abs=4 * float(error.std()) / math.sqrt(4000))


def test_dirichlet_samples() -> None:
    flat = sample_dirichlet(torch.ones(20_000, 4), _generator())
    assert torch.allclose(flat.sum(-1), torch.ones(20_000))
    # Of the flat Dirichlet of dimension 4, one entry is Beta(1, 3): mean 1/4, variance 3/80.
    assert flat[:, 0].mean() == pytest.approx(0.25, abs=0.006)
    assert flat[:, 0].var() == pytest.approx(3 / 80, rel=0.04)
    # Small concentrations, whose gamma variables underflow in single precision, still put all weight on one entry.
    sharp = sample_dirichlet(torch.full((2000, 4), 0.01), _generator())
    assert sharp.isfinite().all()
    assert (sharp.max(-1).values > 0.9).float().mean() > 0.9
    assert torch.allclose(sharp.mean(0), torch.full((4,), 0.25), atol=0.04)


# GridNavi


def test_grid_navi_episode_by_hand() -> None:
    # Goal (2, 0), cell 10. Right, right: on it. Stay: on it. Up: off. Down: on it again. Left of (1, 0) ...
    tasks = GridTasks(torch.tensor([10]))
    steps, _ = _play(GridNavi(), tasks, torch.tensor([RIGHT, RIGHT, STAY, UP, DOWN, LEFT, LEFT, LEFT, DOWN]))
    assert [round(float(step.reward), 4) for step in steps] == [-0.1, 1.0, 1.0, -0.1, 1.0, -0.1, -0.1, -0.1, -0.1]
    assert [int(step.next_obs[0].argmax()) for step in steps] == [5, 10, 10, 11, 10, 5, 0, 0, 0]
    assert not any(step.episode_end.any() for step in steps)


def test_grid_navi_walls_hold_and_time_runs_out() -> None:
    steps, _ = _play(GridNavi(), GridTasks(torch.tensor([24])), torch.tensor([UP] * 7 + [RIGHT] * 9))
    assert [int(step.next_obs[0].argmax()) for step in steps] == [1, 2, 3, 4, 4, 4, 4, 9, 14, 19, 24, 24, 24, 24, 24, 5]
    assert [bool(step.truncated) for step in steps] == [False] * 14 + [True, False]
    assert int(steps[14].obs[0].argmax()) == 0
    assert sum(float(step.reward) for step in steps[:15]) == pytest.approx(10 * -0.1 + 5)


def test_grid_navi_coordinates() -> None:
    steps, _ = _play(GridNavi(observation="xy"), GridTasks(torch.tensor([24])), torch.tensor([UP, RIGHT, RIGHT]))
    assert [step.next_obs[0].tolist() for step in steps] == [[0, 0.25], [0.25, 0.25], [0.5, 0.25]]


def test_grid_navi_goals_are_the_21_cells_away_from_the_start() -> None:
    goals = GridNavi().sample(2000, "train", _generator()).goal
    assert sorted(set(goals.tolist())) == sorted(set(range(25)) - {0, 1, 5, 6})
    assert set(GridNavi().sample(200, "ood", _generator()).goal.tolist()) == {1, 5, 6}


def _all_goals() -> GridTasks:
    return GridTasks(torch.tensor([cell for cell in range(25) if cell not in (0, 1, 5, 6)]))


def test_grid_navi_bounds_are_the_known_exact_ones() -> None:
    bounds = GridNavi().bounds(_all_goals(), 4)
    assert _means(bounds["oracle"]) == pytest.approx([11 + 1 / 14] * 4)
    assert _means(bounds["bayes_optimal"]) == pytest.approx([4, 11 + 1 / 14, 11 + 1 / 14, 11 + 1 / 14])
    assert sum(_means(bounds["bayes_optimal"])) == pytest.approx(37.2143, abs=1e-4)
    assert _means(GridNavi().bounds(_all_goals(), 1)["bayes_optimal"]) == pytest.approx([4])
    # A goal at distance 2: 14 steps on it and 1 before.
    assert _means(GridNavi().bounds(GridTasks(torch.tensor([10])), 1)["oracle"]) == pytest.approx([13.9])


def test_grid_navi_random_bound_is_that_of_a_simulation() -> None:
    tasks = _all_goals()
    env, generator = GridNavi().make_env(21 * 1000, _generator()), _generator(1)
    env.reset(tasks)
    total = torch.zeros(21_000)
    for _ in range(15):
        total += env.step(torch.randint(5, (21_000,), generator=generator)).reward
    assert _means(GridNavi().bounds(tasks, 1)["random"]) == pytest.approx([float(total.mean())], abs=0.05)


def test_grid_navi_gives_no_bayes_value_outside_its_prior() -> None:
    assert set(GridNavi().bounds(GridTasks(torch.tensor([10, 6])), 2)) == {"oracle", "random"}


def _bayes_by_enumeration(size: int, horizon: int, num_episodes: int) -> float:
    """The best total over all action sequences of all episodes, each tried on every goal."""
    cells = [divmod(cell, size) for cell in range(size**2)]
    goals = [cell for cell in cells if max(cell) > 1]
    moves = ((0, 1), (1, 0), (0, -1), (-1, 0))

    def path(actions: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        position, visited = (0, 0), []
        for dx, dy in actions:
            position = (min(max(position[0] + dx, 0), size - 1), min(max(position[1] + dy, 0), size - 1))
            visited.append(position)
        return tuple(visited)

    def total(paths: tuple[tuple[tuple[int, int], ...], ...], goal: tuple[int, int]) -> float:
        found, value = False, 0.0
        for cells_of_episode in paths:
            steps_on_goal = max(horizon - sum(goal) + 1, 0) if found else 0
            if not found and goal in cells_of_episode:
                found, steps_on_goal = True, horizon - cells_of_episode.index(goal)
            value += steps_on_goal - 0.1 * (horizon - steps_on_goal)
        return value

    paths = {path(actions) for actions in itertools.product(moves, repeat=horizon)}
    return max(
        sum(total(choice, goal) for goal in goals) / len(goals)
        for choice in itertools.product(paths, repeat=num_episodes)
    )


@pytest.mark.parametrize(("size", "horizon", "num_episodes"), [(3, 6, 1), (3, 4, 2), (4, 6, 1), (4, 3, 2), (3, 3, 3)])
def test_grid_search_agrees_with_trying_every_path(size: int, horizon: int, num_episodes: int) -> None:
    returns = grid_search.bayes_optimal_returns(size, horizon, num_episodes, 1.0, -0.1)
    assert returns is not None
    goals = [cell for cell in range(size**2) if cell // size > 1 or cell % size > 1]
    expected = sum(episode[goal] for episode in returns for goal in goals) / len(goals)
    assert expected == pytest.approx(_bayes_by_enumeration(size, horizon, num_episodes))


def test_the_bayes_optimal_search_of_each_goal_has_the_known_mean_and_never_beats_the_oracle() -> None:
    """On a few drawn tasks its mean is that of these tasks, which chance moves away from the expectation."""
    tasks = GridNavi().sample(50, "test", _generator())
    bounds = GridNavi().bounds(tasks, 4)
    assert bounds["bayes_optimal"].shape == (4, 50)
    assert bool((bounds["bayes_optimal"] <= bounds["oracle"] + 1e-9).all())
    assert torch.equal(bounds["bayes_optimal"][1:], bounds["oracle"][1:])  # it finds every goal in the first episode
    same = GridNavi().bounds(tasks[:1].repeat_interleave(3), 4)["bayes_optimal"]
    assert torch.equal(same, bounds["bayes_optimal"][:, :1].expand(-1, 3))


@pytest.mark.parametrize("num_episodes", [64, 300])
def test_bounds_of_long_trials_leave_out_what_cannot_be_searched(num_episodes: int) -> None:
    bounds = GridNavi().bounds(_all_goals(), num_episodes)
    assert {"oracle", "random"} <= set(bounds)
    assert all(len(returns) == num_episodes for returns in bounds.values())


def test_grid_search_says_nothing_where_it_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid_search, "MAX_NODES", 50)
    family = GridNavi(size=6, horizon=15)
    assert set(family.bounds(family.sample(3, "test", _generator()), 4)) == {"oracle", "random"}


# Points in the plane


def _point(goal: tuple[float, float], wind: tuple[float, float] = (0.0, 0.0)) -> PointTasks:
    return PointTasks(torch.tensor([goal]), torch.tensor([wind]))


def test_point_navigation_by_hand() -> None:
    # To (.1, .1), then (.2, .05) as .3 is clipped to .1, then (.3, .105), which is within .01 in both axes.
    actions = torch.tensor([[0.1, 0.1], [0.3, -0.05], [0.1, 0.055]])
    steps, _ = _play(PointNavigation(), _point((0.3, 0.1)), actions)
    assert steps[0].reward.item() == pytest.approx(-0.2)  # (.1, .1)
    assert steps[1].reward.item() == pytest.approx(-math.hypot(0.1, 0.05))  # (.2, .05)
    assert steps[2].reward.item() == pytest.approx(-0.005, abs=1e-6)  # (.3, .105)
    assert [bool(step.terminated) for step in steps] == [False, False, True]
    assert steps[2].next_obs[0].tolist() == pytest.approx([0.3, 0.105])
    assert steps[2].obs[0].tolist() == [0, 0]


@pytest.mark.parametrize(("offset", "ends"), [((0.009, -0.009), True), ((0.011, 0.0), False), ((0.0, -0.011), False)])
def test_point_navigation_ends_within_a_hundredth_in_both_axes(offset: tuple[float, float], ends: bool) -> None:
    steps, _ = _play(PointNavigation(), _point((0.05, 0.05)), torch.tensor([[0.05 + offset[0], 0.05 + offset[1]]]))
    assert bool(steps[0].terminated) is ends


def test_point_navigation_oracle_by_hand() -> None:
    # (.25, .1): after a step (.1, .1) the difference is (.15, 0), then (.05, 0), then nothing: -.15 - .05.
    assert _means(PointNavigation().bounds(_point((0.25, 0.1)), 2)["oracle"]) == pytest.approx([-0.2, -0.2])


def test_semicircle_by_hand() -> None:
    # Along the axis of the goal (1, 0) to (.9, 0), then away from it in steps of .05, .1 and .1.
    actions = torch.tensor([[0.1, 0.0]] * 9 + [[0.0, 0.05], [0.0, 0.1], [0.0, 0.1]])
    steps, _ = _play(Semicircle(), _point((1.0, 0.0)), actions)
    rewards = [step.reward.item() for step in steps]
    assert rewards[:7] == [0] * 7
    assert rewards[8] == pytest.approx(0.9)
    assert rewards[9] == pytest.approx(1 - math.hypot(0.1, 0.05))
    assert rewards[10] == pytest.approx(1 - math.hypot(0.1, 0.15))
    assert rewards[11] == 0  # hypot(.1, .25) is more than .2
    dense, _ = _play(Semicircle(dense=True), _point((1.0, 0.0)), actions[:2])
    assert [step.reward.item() for step in dense] == pytest.approx([-0.9, -0.8])


def test_semicircle_oracle_by_hand() -> None:
    # Goal (0, .95): .15 away in step 8, .05 in step 9, there from step 10 to 20.
    assert _means(Semicircle().bounds(_point((0.0, 0.95)), 1)["oracle"]) == pytest.approx([0.85 + 0.95 + 11])
    dense = _means(Semicircle(dense=True).bounds(_point((0.0, 1.0)), 1)["oracle"])
    assert dense == pytest.approx([-4.5], abs=1e-4)  # .9 + .8 + ... + .1


def test_semicircle_goals_lie_on_the_circle() -> None:
    family: Any = Semicircle()
    for split, sign in (("train", 1), ("test", 1), ("ood", -1)):
        goal = family.sample(500, split, _generator()).goal
        assert torch.allclose(goal.norm(dim=1), torch.ones(500))
        assert (goal[:, 1] * sign > 0).all()
        assert goal[:, 0].min() < -0.98
        assert goal[:, 0].max() > 0.98


def test_wind_by_hand() -> None:
    tasks = _point((0.0, 1.0), (0.05, -0.02))
    steps, _ = _play(Wind(), tasks, torch.tensor([[-0.05, 0.1]] * 13))
    # Up by .08 a step: 12 steps reach .96, which is .04 away, and so is 1.04.
    assert steps[11].next_obs[0].tolist() == pytest.approx([0, 0.96], abs=1e-6)
    assert [step.reward.item() for step in steps] == [0] * 13
    steps, _ = _play(Wind(), tasks, torch.cat([torch.tensor([[-0.05, 0.1]] * 12), torch.tensor([[-0.05, 0.05]] * 2)]))
    assert [step.reward.item() for step in steps] == [0] * 12 + [1, 1]  # .99, then 1.02


def test_wind_oracle_by_hand() -> None:
    # Against (0, -.05) the point rises by .05: .97 is not passed before step 20 (1.0), then 56 of 75 steps count.
    assert _means(Wind().bounds(_point((0.0, 1.0), (0.0, -0.05)), 1)["oracle"]) == [56.0]


# All of them


@pytest.mark.parametrize("name", TORCH_FAMILIES)
def test_no_policy_of_random_actions_beats_the_oracle(name: str) -> None:
    family: Any = make(name)
    tasks = family.sample(256, "test", _generator())
    env = family.make_env(256, _generator())
    env.reset(tasks)
    generator, space = _generator(1), family.action_space
    total, active = torch.zeros(256), torch.ones(256, dtype=torch.bool)
    for _ in range(family.horizon):
        if hasattr(space, "n"):
            action = torch.randint(int(space.n), (256,), generator=generator)
        else:
            action = 0.2 * torch.rand(256, 2, generator=generator) - 0.1
        step = env.step(action, active)
        total += step.reward
        active &= ~step.episode_end
    assert total.mean() < _means(family.bounds(tasks, 1)["oracle"])[0]


@pytest.mark.parametrize(
    ("name", "variant", "message"),
    [
        ("bernoulli_bandit", {"num_arms": 1}, "num_arms is 1; must be at least 2"),
        ("bernoulli_bandit", {"num_pulls": 0}, "num_pulls is 0"),
        ("gaussian_bandit", {"reward_std": 0.0}, "reward_std is 0.0; must be positive"),
        ("tabular_mdp", {"num_states": 1}, "num_states is 1"),
        ("tabular_mdp", {"horizon": 0}, "horizon is 0"),
        ("grid_navi", {"size": 2}, "size is 2; must be at least 3"),
        ("grid_navi", {"observation": "cells"}, "observation is 'cells'; must be one of one_hot, xy"),
        ("point_navigation", {"horizon": 0}, "horizon is 0"),
        ("semicircle", {"num_episodes": 0}, "num_episodes is 0"),
        ("wind", {"horizon": -1}, "horizon is -1"),
    ],
)
def test_wrong_variants_are_named(name: str, variant: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(name, **variant)


def test_wrong_use_of_an_environment_is_named() -> None:
    family = GridNavi()
    env = family.make_env(6, _generator())
    with pytest.raises(RuntimeError, match="before reset"):
        env.step(torch.zeros(6, dtype=torch.int64))
    with pytest.raises(ValueError, match="there are 4 tasks; their number must divide the 6"):
        env.reset(family.sample(4, "train", _generator()))
    env.reset(family.sample(3, "train", _generator()))
    with pytest.raises(ValueError, match=r"action has shape \(6, 1\); must be \(6,\)"):
        env.step(torch.zeros(6, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="num_rows is 0"):
        family.make_env(0, _generator())
