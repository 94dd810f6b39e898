"""The outer loop and the evaluation: what is logged, what an evaluation leaves alone, what is refused."""

import copy
import re
from dataclasses import dataclass

import pytest
import torch

from agents.rl2 import RL2Config
from envs.torch_families.bandits import BernoulliBandit
from envs.torch_families.gridworld import GridNavi
from metarl.evaluation import RETURN, logged_points
from metarl.records import Step
from metarl.trainer import TrainConfig, Trainer, train


def small_trainer(family=None, **settings) -> Trainer:
    config = TrainConfig(**{"num_iterations": 4, "num_tasks": 8, "eval_tasks": 5, **settings})
    agent = RL2Config(hidden_size=8, head_sizes=(), num_epochs=1, num_minibatches=2)
    return Trainer(family or GridNavi(horizon=3), agent, config, agent_name="rl2", seed=0)


class Notebook:
    """A run that remembers instead of writing."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.saved: list[str] = []

    def log(self, metrics, step):
        self.rows.append((step, dict(metrics)))

    def save(self, name, state):
        self.saved.append(f"{name}@{state['iteration']}")


def test_a_run_logs_every_iteration_and_saves_on_time():
    run = Notebook()
    trainer = small_trainer(eval_every=2, checkpoint_every=3)
    evaluation = train(trainer, run)  # type: ignore[arg-type]
    assert [step for step, _ in run.rows] == [96, 192, 288, 384]  # 8 rows x 4 episodes x 3 steps each
    assert [tag for tag in run.saved if tag.startswith("latest")] == ["latest@3", "latest@4"]
    assert run.saved[0] == "best@3"
    assert evaluation.points[-1].iqm == run.rows[-1][1]["meta_test/iqm"]
    tags = [set(row) for _, row in run.rows]
    assert {"meta_train/return/ep_1", "meta_train/return/ep_4", "rollout/ep_rew_mean", "time/fps"} <= tags[0]
    assert ["meta_test/iqm" in row for row in tags] == [False, True, False, True]


def test_best_is_the_best_window_of_training_returns():
    trainer = small_trainer()
    outcomes = []
    for window in ([1.0, 3.0], [1.5], [2.5], []):
        trainer._window = window
        outcomes.append(trainer.close_window())
    assert outcomes == [True, False, True, False]
    assert trainer.best_return == 2.5


def test_an_evaluation_changes_nothing_and_repeats():
    trainer = small_trainer()
    trainer.iterate()
    before = copy.deepcopy(trainer.state_dict())
    first, second = trainer.evaluate(), trainer.evaluate()
    assert first == second
    assert first != trainer.evaluate(seed=1)
    torch.testing.assert_close(trainer.state_dict(), before, rtol=0, atol=0)


def test_an_evaluation_has_a_score_an_episode_and_the_known_bounds():
    evaluation = small_trainer().evaluate("train", num_tasks=6, num_points=2)
    assert (evaluation.split, evaluation.num_tasks, len(evaluation.points)) == ("train", 6, 2)
    assert set(evaluation.as_json()["points"][0]) == {"mean", "iqm", "ci95"}
    assert all(len(values) == 2 for values in evaluation.bounds.values())
    low, high = evaluation.total.ci95
    assert low <= evaluation.total.mean <= high
    assert evaluation.total.mean == pytest.approx(sum(score.mean for score in evaluation.points), abs=1e-5)


@dataclass(frozen=True)
class BrokenBandit(BernoulliBandit):
    """Pays infinitely much in one row."""

    def make_env(self, num_rows, generator):
        env = super().make_env(num_rows, generator)
        step = env.step

        def broken(action, active=None):
            result = step(action, active)
            result.reward[3] = torch.inf
            return Step(**vars(result))

        env.step = broken  # type: ignore[method-assign]
        return env


def test_an_infinite_reward_names_the_task_and_the_step():
    with pytest.raises(FloatingPointError, match="step 0 of row 3 is not finite; its task is BanditTasks"):
        small_trainer(BrokenBandit(num_arms=2, num_pulls=2)).iterate()


@pytest.mark.parametrize("field", ["num_iterations", "num_tasks", "copies", "num_points", "checkpoint_every"])
def test_a_number_below_one_is_named(field):
    with pytest.raises(ValueError, match=f"{field} is 0; must be at least 1"):
        small_trainer(**{field: 0})


def test_long_trials_get_a_curve_for_some_episodes_only():
    assert logged_points(RETURN, 4) == [1, 2, 3, 4]
    assert logged_points(RETURN, 100) == [1, 2, 5, 10, 20, 50, 100]
    assert logged_points(RETURN, 11) == [1, 2, 5, 10, 11]


@dataclass(frozen=True)
class BlindBandit(BernoulliBandit):
    """Shows what is not a number in one row."""

    def make_env(self, num_rows, generator):
        env = super().make_env(num_rows, generator)
        step = env.step

        def broken(action, active=None):
            result = step(action, active)
            result.next_obs[2] = torch.nan
            return result

        env.step = broken  # type: ignore[method-assign]
        return env


def test_an_observation_that_is_not_a_number_names_the_task_and_the_step():
    trainer = small_trainer(BlindBandit(num_arms=2, num_pulls=2))
    with pytest.raises(
        FloatingPointError, match="observation at step 0 of row 2 is not finite; its task is BanditTasks"
    ):
        trainer.iterate()


def test_an_update_that_spoils_the_network_is_not_saved_over_a_good_one():
    run = Notebook()
    trainer = small_trainer(checkpoint_every=1)

    def spoil(trainer: Trainer, metrics: object) -> None:
        """After the second iteration, a gradient that is not a number."""
        if trainer.iteration == 2:
            next(trainer.agent.net.parameters()).register_hook(lambda gradient: gradient * torch.nan)

    with pytest.raises(FloatingPointError, match=r"parameter .* is not finite after update 3, at learning_rate"):
        train(trainer, run, spoil)  # type: ignore[arg-type]
    assert [tag for tag in run.saved if tag.startswith("latest")] == ["latest@1", "latest@2"]


def test_the_last_iteration_is_saved_before_its_evaluation_and_logged_where_that_is_stopped():
    run, trainer = Notebook(), small_trainer(num_iterations=2, checkpoint_every=50)

    def stop(*_, **__):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(trainer, run, evaluate=stop)  # type: ignore[arg-type]
    assert run.saved == ["best@2", "latest@2"]
    assert len(run.rows) == 2


def test_a_training_stopped_at_a_checkpoint_goes_on_as_if_it_had_not_been():
    def stop_at_two(trainer: Trainer, metrics: object) -> None:
        if trainer.iteration == 2:
            raise InterruptedError

    whole, stopped = (small_trainer(num_iterations=6, checkpoint_every=2) for _ in range(2))
    train(whole, Notebook())  # type: ignore[arg-type]
    with pytest.raises(InterruptedError):
        train(stopped, Notebook(), stop_at_two)  # type: ignore[arg-type]
    resumed = small_trainer(num_iterations=6, checkpoint_every=2)
    resumed.load_state_dict(stopped.state_dict())
    train(resumed, Notebook())  # type: ignore[arg-type]
    assert resumed.best_return == whole.best_return


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("head_sizes", (-5,)),
        ("encoder_sizes", (8, 0)),
        ("learning_rate", float("nan")),
        ("final_learning_rate", -1.0),
        ("value_clip", -1.0),
        ("target_kl", 0.0),
        ("entropy_coefficient", float("nan")),
        ("final_entropy_coefficient", float("inf")),
        ("lam", 1.5),
    ],
)
def test_a_setting_of_rl2_out_of_range_is_named(field, value):
    with pytest.raises(ValueError, match=f"^{field} is {re.escape(str(value))}; "):
        RL2Config(**{field: value})
