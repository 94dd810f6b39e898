"""Metrics beside the return: averaged over steps by episode, logged, printed, and kept in the evaluation."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from agents.rl2 import RL2Config
from envs.locomotion.half_cheetah import HalfCheetahVel
from envs.torch_families.gridworld import GridNavi
from envs.torch_families.torch_env import TorchEnv
from experiments.cli.tables import print_evaluation
from metarl.evaluation import mean_metrics
from metarl.protocols import Measures
from metarl.records import Step
from metarl.rl.rollouts import collect
from metarl.trainer import TrainConfig, Trainer
from tests.metarl.test_records import trajectory
from tests.metarl.test_trainer import small_trainer

GRID = GridNavi(horizon=3)
FREE = HalfCheetahVel(horizon=5, control_cost=0.0)  # the reward is -velocity_error and nothing else


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def trainer_of(family: Any) -> Trainer:
    config = TrainConfig(num_iterations=2, num_tasks=4, eval_tasks=6)
    agent = RL2Config(hidden_size=8, head_sizes=(), num_epochs=1, num_minibatches=2)
    return Trainer(family, agent, config, agent_name="rl2", seed=0)


def test_means_over_the_steps_of_each_episode() -> None:
    """The first row has episodes of 1, 2 and 1 steps, the second of 2 and 1 steps, and one step that is not valid."""
    metrics = torch.tensor([[[1.0, -1.0], [10.0, 0.0]], [[2.0, -2.0], [20.0, 0.0]], [[4.0, -4.0], [40.0, 0.0]]])
    metrics = torch.cat([metrics, torch.full((1, 2, 2), 7.0)])
    means = replace(trajectory(), metrics=metrics).episode_metrics(3)
    assert means is not None
    assert means[:2].tolist() == [[[1, -1], [15, 0]], [[3, -3], [40, 0]]]
    assert means[2, 0].tolist() == [7, 7]
    assert means[2, 1].isnan().all()  # the second row has no third episode
    assert trajectory().episode_metrics(3) is None
    assert replace(trajectory(), metrics=metrics).by_task(1).metrics.shape == (1, 8, 2)  # type: ignore[union-attr]


def test_an_evaluation_has_the_metrics_of_its_environment() -> None:
    trainer = trainer_of(FREE)
    evaluation = trainer.evaluate()
    assert set(evaluation.metrics) == {"velocity_error"}
    by_return = [-episode.mean / FREE.horizon for episode in evaluation.points]
    assert evaluation.metrics["velocity_error"] == pytest.approx(by_return, rel=1e-5)
    assert evaluation.as_json()["metrics"] == evaluation.metrics
    diverged = replace(evaluation, metrics={"error": [1.0, math.nan]}, bounds={"known": [math.inf]})
    assert json.loads(json.dumps(diverged.as_json(), allow_nan=False))["metrics"] == {"error": [1.0, None]}


def test_metrics_are_logged_by_episode() -> None:
    trainer = trainer_of(FREE)
    metrics = trainer.iterate()
    for episode in (1, 2):
        error = metrics[f"meta_train/velocity_error/ep_{episode}"]
        assert error == pytest.approx(-metrics[f"meta_train/return/ep_{episode}"] / FREE.horizon, rel=1e-5)
    assert not [tag for tag in small_trainer().iterate() if tag.startswith("meta_train/") and "return" not in tag]


def test_metrics_are_printed_beside_the_return(capsys: pytest.CaptureFixture[str]) -> None:
    evaluation = trainer_of(FREE).evaluate()
    values = evaluation.metrics["velocity_error"] = [0.25, 1.75]
    print_evaluation(evaluation)
    printed = capsys.readouterr().out
    assert "velocity-error" in printed
    for value in (*values, 1.0):  # the mean over the trial in its last row
        assert f"{value:.2f}" in printed


def test_environments_without_metrics_have_none() -> None:
    env = GRID.make_env(2, generator())
    assert not isinstance(env, Measures)
    assert mean_metrics(env, None) == {}
    assert isinstance(FREE.make_env(2, generator()), Measures)
    assert small_trainer().evaluate().metrics == {}


def test_metrics_that_come_and_go_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    env, step = GRID.make_env(2, generator()), TorchEnv.step
    count = iter(range(100))

    def odd(self: Any, *arguments: Any) -> Step:
        result = step(self, *arguments)
        return result if next(count) else replace(result, metrics=torch.zeros(self.num_rows, 1))

    monkeypatch.setattr(TorchEnv, "step", odd)
    tasks = GRID.sample(2, "train", generator())
    with pytest.raises(ValueError, match="metrics is None at one step of the environment; must be given"):
        collect(env, small_trainer().agent, tasks, 1, generator=generator())


def test_a_diverged_row_keeps_the_metrics_of_the_step_before() -> None:
    env = FREE.make_env(3, generator())
    env.reset(FREE.sample(3, "train", generator()))
    before = env.step(torch.zeros(3, 6)).metrics
    env.physics.qvel[1] = 1e9
    step = env.step(torch.zeros(3, 6))
    assert step.truncated.tolist() == [False, True, False]
    assert before is not None
    assert step.metrics is not None
    assert step.metrics[1] == before[1]
    assert step.metrics.isfinite().all()
    assert step.metrics[0] != before[0]
    env.physics.qvel[1] = 1e9
    again = env.step(torch.zeros(3, 6)).metrics
    assert again is not None
    assert again[1] == before[1]  # nor those of a step that diverged itself
