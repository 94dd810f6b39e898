"""The outer loop and the evaluation: what is logged, what an evaluation leaves alone, what is refused."""

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch

from agents.rl2 import RL2Config
from envs.torch_families.bandits import BernoulliBandit
from envs.torch_families.gridworld import GridNavi
from envs.torch_families.navigation import PointNavigation
from metarl.errors import EnvironmentFailed
from metarl.evaluation import RETURN, logged_points
from metarl.fewshot.methods.anil import ANILConfig
from metarl.fewshot.methods.maml import MAMLConfig
from metarl.fewshot.methods.reptile import ReptileConfig
from metarl.fewshot.regression import Sinusoid
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
    assert [tag for tag in run.saved if tag.startswith("latest")] == ["latest@0", "latest@3", "latest@4"]
    assert run.saved[1] == "best@3"
    assert evaluation.points[-1].iqm == run.rows[-1][1]["meta_test/iqm"]
    tags = [set(row) for _, row in run.rows]
    assert {"meta_train/return/ep_1", "meta_train/return/ep_4", "rollout/ep_rew_mean", "time/fps"} <= tags[0]
    assert ["meta_test/iqm" in row for row in tags] == [False, True, False, True]


def test_the_gain_and_the_gap_to_training_tasks_are_logged_with_an_evaluation():
    run = Notebook()
    evaluation = train(small_trainer(eval_every=0), run)  # type: ignore[arg-type]
    last = run.rows[-1][1]
    assert evaluation.gain is not None
    assert last["meta_test/gain"] == evaluation.gain.mean
    assert last["meta_test/gap"] == pytest.approx(last["meta_train/return/ep_4"] - evaluation.points[-1].mean)


def test_best_is_the_best_window_of_training_returns():
    trainer = small_trainer()
    outcomes = []
    for window in ([1.0, 3.0], [1.5], [2.5], []):
        trainer._window = window
        outcomes.append(trainer.close_window())
    assert outcomes == [True, False, True, False]
    assert trainer.best_return == 2.5


def validated(trainer: Trainer, scores: dict[int, float]) -> tuple[Notebook, list[tuple[int, str]]]:
    """A training whose validation has these scores, by iteration; its run, and what was evaluated."""
    asked = []

    def evaluate(trainer: Trainer, split):
        asked.append((trainer.iteration, split))
        evaluation = replace(trainer.evaluate("test"), split=split)
        if split != "val":
            return evaluation
        return replace(evaluation, points=[replace(p, mean=scores[trainer.iteration]) for p in evaluation.points])

    run = Notebook()
    train(trainer, run, evaluate=evaluate)  # type: ignore[arg-type]
    return run, asked


def test_best_is_chosen_on_validation_tasks_where_a_family_has_them():
    trainer = small_trainer(eval_every=1, checkpoint_every=1)
    vars(trainer.source)["validation_split"] = "val"
    run, asked = validated(trainer, {1: 0.0, 2: 2.0, 3: 1.0, 4: 1.5})
    assert asked == [(1, "val"), (2, "val"), (3, "val"), (4, "val"), (4, "test")]
    assert [name for name in run.saved if name.startswith("best")] == ["best@1", "best@2"]
    assert trainer.best_return == 2.0
    assert ["meta_val/iqm" in row for _, row in run.rows] == [True] * 4
    assert ["meta_test/iqm" in row for _, row in run.rows] == [False, False, False, True]


def test_without_validation_tasks_best_is_chosen_on_training_tasks_and_curves_are_of_test_tasks():
    trainer = small_trainer(eval_every=2, checkpoint_every=2)
    assert trainer.validation_split == "test"
    run, asked = validated(trainer, {})
    assert asked == [(2, "test"), (4, "test")]
    assert "best@2" in run.saved


def test_validation_leaves_what_is_learned_as_it_was():
    plain, other = small_trainer(eval_every=2), small_trainer(eval_every=2)
    vars(other.source)["validation_split"] = "val"
    train(plain, Notebook())  # type: ignore[arg-type]
    validated(other, {2: 1.0, 4: 1.0})
    torch.testing.assert_close(plain.agent.state_dict(), other.agent.state_dict(), rtol=0, atol=0)


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

    with pytest.raises(FloatingPointError, match="a parameter is not finite after a gradient step at learning rate"):
        train(trainer, run, spoil)  # type: ignore[arg-type]
    assert [tag for tag in run.saved if tag.startswith("latest")] == ["latest@0", "latest@1", "latest@2"]


def test_the_last_iteration_is_saved_before_its_evaluation_and_logged_where_that_is_stopped():
    run, trainer = Notebook(), small_trainer(num_iterations=2, checkpoint_every=50)

    def stop(*_, **__):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(trainer, run, evaluate=stop)  # type: ignore[arg-type]
    assert run.saved == ["latest@0", "best@2", "latest@2"]
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


# What a user's functions may do


def bandit_whose_step(change: Callable[[Step, int], Step]) -> BernoulliBandit:
    """A family whose environment's step, counted from zero, is changed on its way out."""

    @dataclass(frozen=True)
    class Changed(BernoulliBandit):
        def make_env(self, num_rows, generator):
            env = super().make_env(num_rows, generator)
            step, number = env.step, iter(range(10**6))
            env.step = lambda action, active=None: change(step(action, active), next(number))  # type: ignore[method-assign]
            return env

    return Changed(num_arms=2, num_pulls=2)


def price_of_nothing(step: Step, number: int) -> Step:
    if number == 1:
        {}["price"]
    return step


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (price_of_nothing, r"price_of_nothing \(test_trainer.py, line \d+\) raises KeyError: 'price', at step 1 in 8"),
        (
            lambda step, _: replace(step, reward=step.reward[:, None]),
            r"reward .* has shape \[8, 1\]; must be .* step 0",
        ),
        (lambda step, _: replace(step, next_obs=step.next_obs[:, None]), r"next_obs .* has shape \[8, 1, "),
        (lambda step, _: replace(step, truncated=step.truncated[:3]), r"truncated .* has shape \[3\]; must be .*\[8\]"),
        (lambda step, _: replace(step, reward=3.0), r"reward .* is a float; must be a tensor of shape \[8\]"),
    ],
)
@pytest.mark.parametrize("evaluated", [False, True])
def test_a_function_that_fails_in_mid_trial_is_named_with_step_and_tasks(change, message, evaluated):
    trainer = small_trainer(bandit_whose_step(change), eval_tasks=8)
    with pytest.raises(EnvironmentFailed, match=message) as failed:
        trainer.evaluate() if evaluated else trainer.iterate()
    assert "\n" not in str(failed.value)


def spoilt(step: Step, name: str, number: int, at: int) -> Step:
    value = getattr(step, name)
    return replace(step, **{name: torch.full_like(value, torch.nan)}) if number == at else step


@pytest.mark.parametrize(("name", "message"), [("obs", "observation"), ("reward", "reward")])
def test_an_action_that_is_not_finite_names_what_made_it_so(name, message):
    trainer = continuous_trainer(lambda step, number: spoilt(step, name, number, 1))
    with pytest.raises(FloatingPointError, match=f"{message}.* at step 2 of row 0 is not finite; its task is"):
        trainer.iterate()


def test_an_action_that_is_not_finite_for_want_of_a_finite_policy_is_named():
    trainer = continuous_trainer(lambda step, number: step)
    trainer.agent.net.policy.log_std.data.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="action at step 0 of row 0 is not finite; its task is"):
        trainer.evaluate()


def continuous_trainer(change: Callable[[Step, int], Step]) -> Trainer:
    @dataclass(frozen=True)
    class Changed(PointNavigation):
        def make_env(self, num_rows, generator):
            env = super().make_env(num_rows, generator)
            step, number = env.step, iter(range(10**6))
            env.step = lambda action, active=None: change(step(action, active), next(number))  # type: ignore[method-assign]
            return env

    return small_trainer(Changed(horizon=4))


def test_bounds_that_fail_cost_the_evaluation_nothing_else(caplog):
    @dataclass(frozen=True)
    class Boundless(BernoulliBandit):
        def bounds(self, tasks, num_episodes):
            return self.bounds(tasks, num_episodes)

    evaluation = small_trainer(Boundless(num_arms=2, num_pulls=2)).evaluate()
    assert evaluation.bounds == {}
    assert evaluation.points
    assert "no bounds are given" in caplog.text
    assert "RecursionError" in caplog.text


def test_the_exact_bound_of_many_episodes_is_left_out_not_an_error():
    family = GridNavi()
    tasks = family.sample(2, "train", torch.Generator().manual_seed(0))
    assert set(family.bounds(tasks, 64)) == {"oracle", "random"}


# Few-shot learners that diverge


@pytest.mark.parametrize("config", [ANILConfig(inner_lr=1e9), MAMLConfig(inner_lr=1e3), ReptileConfig(inner_lr=1e3)])
def test_a_learner_that_diverges_is_not_saved_over_a_good_one(config):
    run = Notebook()
    train_config = TrainConfig(num_iterations=40, num_tasks=4, eval_every=0, eval_tasks=4, checkpoint_every=1)
    trainer = Trainer(Sinusoid(), config, train_config, agent_name="learner", seed=0)

    def look(trainer: Trainer, metrics: object) -> None:
        assert all(bool(value.isfinite().all()) for value in trainer.agent.adaptation.parameters())

    with pytest.raises(FloatingPointError):
        train(trainer, run, look)  # type: ignore[arg-type]


def test_an_evaluation_without_a_finite_point_is_an_error():
    config = TrainConfig(num_iterations=1, num_tasks=4, eval_tasks=4)
    trainer = Trainer(Sinusoid(), MAMLConfig(inner_lr=1e30), config, agent_name="maml", seed=0)
    with pytest.raises(FloatingPointError, match="mse of maml is not finite at any step of 4 test tasks of sinusoid"):
        trainer.evaluate()


# When checkpoints are saved


def test_checkpoints_come_by_time_too_and_leave_the_window_open(monkeypatch):
    minutes = iter(range(0, 600, 2))
    monkeypatch.setattr("metarl.trainer.time.monotonic", lambda: 60.0 * next(minutes))
    run, by_iterations = Notebook(), Notebook()
    trainer = small_trainer(num_iterations=6, checkpoint_every=5, checkpoint_minutes=3.0)
    train(trainer, run)  # type: ignore[arg-type]
    other = small_trainer(num_iterations=6, checkpoint_every=5)
    train(other, by_iterations)  # type: ignore[arg-type]
    assert {"latest@0", "latest@2", "best@5"} <= set(run.saved)
    assert other.best_return == trainer.best_return


def test_more_iterations_than_ever_end_are_refused():
    with pytest.raises(ValueError, match=r"num_iterations is 10.*must be at most") as refused:
        small_trainer(num_iterations=10**400)
    assert len(str(refused.value)) < 100
