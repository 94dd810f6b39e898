"""Evaluations: their numbers against those of the tasks, paired gains, and what lies beyond training."""

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from agents.maml import MAMLTRPOConfig
from agents.rl2 import RL2Config
from envs.catalog import make
from envs.torch_families.bandits import BernoulliBandit
from envs.torch_families.gridworld import GridNavi
from envs.torch_families.navigation import PointNavigation
from metarl.evaluation import ADAPTED_RETURN, RETURN, Evaluation, Measure, Score, Speed, Tail, evaluate
from metarl.fewshot.methods.maml import MAMLConfig
from metarl.fewshot.regression import Sinusoid
from metarl.records import Record
from metarl.source import TrainConfig
from metarl.trainer import Trainer

LABELS = {"family": "a", "agent": "b", "split": "test"}


@dataclass(frozen=True)
class Inner(Record):
    wind: torch.Tensor


@dataclass(frozen=True)
class Tasks(Record):
    goal: torch.Tensor
    inner: Inner


def evaluated(scores: torch.Tensor, measure: Measure = RETURN, **known) -> Evaluation:
    return Evaluation.of(scores, measure=measure, **LABELS, **known)


def trainer(family, config, **train) -> Trainer:
    return Trainer(family, config, TrainConfig(num_iterations=1, **train), agent_name="agent", seed=0)


def test_every_number_follows_from_those_of_the_tasks():
    curve = trainer(GridNavi(), RL2Config(hidden_size=4, head_sizes=(4,)), num_tasks=2).evaluate("test", 12, 3)
    stored = json.loads(json.dumps(curve.as_json()))["per_task"]
    scores = np.array(stored["scores"])
    assert scores.shape == (3, 12)
    assert [score.mean for score in curve.points] == pytest.approx(scores.mean(1))
    assert curve.total.mean == pytest.approx(scores.sum(0).mean())
    assert curve.points[0] == Score.of(torch.tensor(stored["scores"][0]))
    assert curve.gain == Score.of(torch.tensor(stored["scores"][2]) - torch.tensor(stored["scores"][0]))
    for name, means in curve.bounds.items():
        assert means == pytest.approx(np.array(stored["bounds"][name]).mean(1))
        gap = scores.sum(0) - np.array(stored["bounds"][name]).sum(0)
        assert curve.bound_gaps[name].mean == pytest.approx(gap.mean())
    goals = torch.tensor(stored["parameters"]["goal"])
    bounds = GridNavi().bounds(GridNavi().sample(12, "test", torch.Generator().manual_seed(1_000_003)), 3)
    assert stored["bounds"]["oracle"] == bounds["oracle"].tolist()
    assert goals.shape == (12,)


def test_a_paired_gain_is_known_better_than_the_points_are():
    """Tasks differ by thousands, and each gains one: the interval of the gain has no width."""
    first = torch.arange(20.0) * 1000
    curve = evaluated(torch.stack([first, first + 1]))
    assert curve.gain == Score(1.0, 1.0, (1.0, 1.0))
    assert curve.points[1].ci95[0] < curve.points[0].ci95[1]


@pytest.mark.parametrize(("higher_is_better", "gain"), [(True, -2.0), (False, 2.0)])
def test_a_gain_is_an_improvement_whichever_way_is_better(higher_is_better, gain):
    measure = Measure("error", "step", 0, higher_is_better=higher_is_better)
    curve = evaluated(torch.tensor([[5.0, 6.0], [3.0, 4.0]]), measure)
    assert curve.gain is not None
    assert curve.gain.mean == gain


def test_one_point_has_no_gain():
    assert evaluated(torch.ones(1, 4)).gain is None


def test_bounds_of_single_tasks_have_intervals_and_means_have_none():
    bounds = {"exact": torch.tensor([[1.0, 3.0], [1.0, 3.0]]), "mean": [2.0, 2.5]}
    curve = evaluated(torch.zeros(2, 2), ADAPTED_RETURN, bounds=bounds)
    assert curve.bounds == {"exact": [2.0, 2.0], "mean": [2.0, 2.5]}
    assert curve.bound_intervals == {"exact": [(1.0, 3.0)] * 2}
    assert set(curve.bound_gaps) == {"exact"}
    assert curve.bound_gaps["exact"].mean == -2  # of the last point, as they do not add up


def test_a_row_for_each_task_and_point_names_its_parameters():
    tasks = Tasks(torch.tensor([[0.5, 1.0], [2.0, 3.0]]), Inner(torch.tensor([7, 8])))
    metrics = {"speed": torch.tensor([[0.1, 0.2], [0.3, 0.4]])}
    curve = evaluated(torch.tensor([[1.0, 2.0], [3.0, math.nan]]), tasks=tasks, metrics=metrics)
    assert curve.per_task is not None
    rows = curve.per_task.rows(curve.measure)
    assert [(row["task"], row["episode"], row["return"]) for row in rows[:3]] == [(0, 1, 1.0), (0, 2, 3.0), (1, 1, 2.0)]
    assert rows[2] == {
        "task": 1,
        "episode": 1,
        "return": 2.0,
        "metric.speed": 0.2,
        "task.goal.0": 2.0,
        "task.goal.1": 3.0,
        "task.inner.wind": 8,
    }
    assert curve.as_json()["per_task"]["scores"][1][1] is None  # JSON knows no nan


@pytest.mark.parametrize(
    ("family", "config", "trained"),
    [
        (BernoulliBandit(num_arms=2, num_pulls=3), RL2Config(hidden_size=4, head_sizes=(4,)), 3),
        (make("point_navigation", horizon=3), MAMLTRPOConfig(num_rollouts=2, hidden_sizes=(4,)), 2),
        (Sinusoid(), MAMLConfig(num_inner_steps=2), 3),
    ],
    ids=["rl2", "maml_trpo", "maml"],
)
def test_an_evaluation_knows_how_much_of_its_curve_training_had(family, config, trained):
    curve = trainer(family, config, num_tasks=2).evaluate("test", 3, 5)
    assert curve.trained_points == trained


def test_deterministic_actions_are_the_policys_mode_and_repeat():
    family = BernoulliBandit(num_arms=3, num_pulls=6)
    tasks = family.sample(1, "test", torch.Generator().manual_seed(0)).repeat_interleave(40)
    config = RL2Config(hidden_size=4, head_sizes=(4,))
    generator = torch.Generator().manual_seed(0)
    agent = config.make(family.observation_space, family.action_space, num_iterations=1, generator=generator)
    spreads = []
    for deterministic in (True, False):
        settings: dict[str, Any] = {
            "split": "test",
            "num_tasks": 40,
            "num_points": 1,
            "tasks": tasks,
            "deterministic": deterministic,
        }
        paying: Any = _Paying(family)
        curve = evaluate(paying, agent, agent_name="rl2", generator=generator, **settings)
        assert curve.per_task is not None
        spreads.append(len(set(curve.per_task.scores[0])))
    assert spreads == [1, 3]  # the one arm; any of three


class _Paying:
    """A bandit whose arms pay what their number is, without chance."""

    def __init__(self, family: BernoulliBandit) -> None:
        self._family = family

    def __getattr__(self, name):
        return getattr(self._family, name)

    def make_env(self, num_rows, generator):
        env = self._family.make_env(num_rows, generator)
        step = env.step

        def paying(action, active=None):
            result = step(action, active)
            return type(result)(**{**vars(result), "reward": action.float()})

        env.step = paying
        return env


def test_an_agent_that_adapts_to_sampled_actions_is_refused_without_them():
    maml = trainer(make("point_navigation", horizon=3), MAMLTRPOConfig(num_rollouts=2, hidden_sizes=(4,)), num_tasks=2)
    with pytest.raises(
        ValueError, match="deterministic is True; agent adapts to blocks of episodes of sampled actions"
    ):
        maml.evaluate("test", 3, 2, deterministic=True)
    assert len(maml.evaluate("test", 3, 1, deterministic=True).points) == 1
    with pytest.raises(ValueError, match="deterministic is True; agent predicts and does not act"):
        trainer(Sinusoid(), MAMLConfig(), num_tasks=2).evaluate("test", 3, 2, deterministic=True)


@pytest.mark.parametrize(("higher_is_better", "sign"), [(True, 1.0), (False, -1.0)])
def test_the_tail_is_that_of_the_worst_tasks_whichever_way_is_better(higher_is_better, sign):
    scores = sign * torch.arange(40.0)[torch.randperm(40, generator=torch.Generator().manual_seed(0))]
    tail = Tail.of(scores, higher_is_better=higher_is_better)
    assert tail.cvar20 == sign * 3.5  # of 0 to 7
    assert tail.cvar5 == sign * 0.5  # of 0 and 1
    assert (tail.worst, float(scores[tail.worst_task])) == (0.0, 0.0)


def test_every_point_has_its_tail_in_the_json():
    stored = evaluated(torch.tensor([[1.0, 5.0], [4.0, 3.0]])).as_json()["tails"]
    assert [(tail["worst"], tail["worst_task"]) for tail in stored] == [(1.0, 0), (3.0, 1)]


BOUNDS = {"random": [0.0, 0.0, 0.0], "oracle": [10.0, 10.0, 10.0]}


@pytest.mark.parametrize(
    ("means", "reached"), [([1.0, 9.0, 5.0], (2, 20)), ([9.5, 9.0, 9.9], (1, 0)), ([1.0, 2.0, 8.99], (None, None))]
)
def test_adaptation_is_as_fast_as_the_first_point_that_comes_close_to_the_oracle(means, reached):
    speed = Speed.of(means, BOUNDS, 1, [0, 20, 40])
    assert speed is not None
    assert (speed.reached, speed.experience) == reached
    assert speed.shares == [mean / 10 for mean in means]


def test_there_is_no_speed_without_both_bounds():
    assert Speed.of([1.0], {"oracle": [2.0]}, 1, [0]) is None


@pytest.mark.parametrize(
    ("family", "config", "experience"),
    [
        (GridNavi(num_episodes=3, horizon=4), RL2Config(hidden_size=4, head_sizes=(4,)), [0, 1, 2]),
        (PointNavigation(horizon=4), MAMLTRPOConfig(hidden_sizes=(4,), num_rollouts=5), [0, 5, 10]),
    ],
)
def test_a_point_comes_after_the_episodes_that_the_agent_has_seen_of_the_task(family, config, experience):
    curve = trainer(family, config, num_tasks=2).evaluate("test", 2, len(experience))
    assert curve.experience == experience
