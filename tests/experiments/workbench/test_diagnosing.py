"""Detectors of self-deception: each fires where its fault is built in, and is silent where it is not."""

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import metarl
from agents.maml import MAML, MAMLTRPOConfig
from agents.pearl import PEARLConfig
from agents.promp import ProMPConfig
from agents.rl2 import RL2Config
from agents.teacher_student import TeacherStudentConfig
from agents.varibad import VariBADConfig
from envs.torch_families.gridworld import GridNavi
from envs.torch_families.navigation import PointNavigation, PointTasks
from experiments.experiment.definition import Experiment, restored
from experiments.workbench.insight.exchange import LearnerExchange, exchange_of
from experiments.workbench.insight.forgetting import _first_tasks, _lost, forgetting
from experiments.workbench.insight.hacking import rank_correlation, reward_hacking
from experiments.workbench.insight.interference import cosines, gradients, interference
from experiments.workbench.insight.memorisation import judged, labels, memorisation
from experiments.workbench.insight.overfitting import overfitting
from experiments.workbench.insight.shortcuts import shortcuts
from experiments.workbench.insight.watching import Misled
from metarl._lazy import imported
from metarl.evaluation import RETURN, Evaluation, Measure
from metarl.fewshot.catalog import LEARNERS
from metarl.fewshot.episode import FewShotEpisode
from metarl.fewshot.problem import ERROR, Regression
from metarl.fewshot.regression import Sinusoid
from metarl.records import Examples, Step
from metarl.rl.rollouts import run_trial
from metarl.trainer import TrainConfig, Trainer
from tests.experiments.command import run as command

GRID = Experiment(
    GridNavi(size=3, horizon=4, num_episodes=2),
    RL2Config(hidden_size=4, head_sizes=(), num_epochs=1),
    TrainConfig(num_iterations=1, num_tasks=2, eval_tasks=2),
)
POINT = replace(PointNavigation(), horizon=5)
PROMP = ProMPConfig(hidden_sizes=(8,), num_rollouts=4)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trainer(family: Any, agent: Any, **train: Any) -> Trainer:
    return Experiment(family, agent, TrainConfig(num_iterations=1, **{"num_tasks": 2, **train})).trainer()


# Memorisation


@dataclass(frozen=True)
class Known:
    """What an exchange says of scores that a test gives."""

    measure: Measure = RETURN
    floor: Any = None
    num_tasks: int = 40
    tasks: Any = None
    adapts_while_scored: bool = False


@pytest.mark.parametrize(
    ("other", "level"), [(0.2, "fine"), (0.95, "warning"), (0.7, "warning"), (1.0, "warning"), (0.5, "fine")]
)
def test_as_good_with_another_tasks_data_means_memorised(other, level):
    noise = 0.01 * torch.randn(40, generator=generator())
    exchange: Any = Known(floor=torch.full((40,), 0.2))
    finding = judged(exchange, 1 + noise, torch.full((40,), other), torch.full((40,), 0.2), "training")
    assert finding.level == level


@pytest.mark.parametrize(("adapts_while_scored", "level"), [(False, "warning"), (True, "fine")])
def test_as_good_without_data_means_memorised_unless_it_adapts_while_it_is_scored(adapts_while_scored, level):
    exchange: Any = Known(floor=torch.full((40,), 0.2), adapts_while_scored=adapts_while_scored)
    right = 0.9 + 0.01 * torch.randn(40, generator=generator())
    finding = judged(exchange, right, torch.full((40,), 0.3), torch.full((40,), 0.85), "training")
    assert finding.level == level
    assert ("without any data" in finding.verdict) != adapts_while_scored


def test_too_few_tasks_to_tell_are_not_a_verdict():
    exchange: Any = Known(floor=torch.zeros(10))
    noise = torch.linspace(-1, 1, 10)
    finding = judged(exchange, torch.ones(10), 0.6 + noise, torch.zeros(10), "training")
    assert finding.level == "unknown"
    assert finding.verdict.startswith("cannot be told from 10 tasks")


def test_who_has_learned_nothing_has_memorised_nothing():
    scores = torch.randn(40, generator=generator())
    exchange: Any = Known(floor=scores)
    assert judged(exchange, scores, scores, scores, "training").level == "unknown"


def test_lower_errors_are_better():
    exchange: Any = Known(ERROR, torch.full((40,), 4.0))
    finding = judged(exchange, torch.full((40,), 0.1), torch.full((40,), 3.0), torch.full((40,), 4.0), "training")
    assert finding.level == "fine"
    assert finding.numbers["owed"] == pytest.approx(2.9)


class Learner:
    """A learner of constants: it answers the mean of the support, or the constant that an input always has."""

    point = "step"

    def __init__(self, *, memorises: bool) -> None:
        self.memorises = memorises

    def predictions(self, episode: FewShotEpisode, num_points: int) -> Tensor:
        told = episode.query.x if self.memorises else episode.support.y.mean(1, keepdim=True).expand_as(episode.query.y)
        return torch.stack([torch.zeros_like(told)] + [told] * num_points)


def constants(*, memorises: bool) -> LearnerExchange:
    """Tasks whose constant can be read from each input as well."""
    value = torch.randn(30, 1, 1, generator=generator())
    support, query = (Examples(value.expand(-1, n, -1), value.expand(-1, n, -1)) for n in (4, 6))
    learner = Learner(memorises=memorises)
    return LearnerExchange(ERROR, Regression(1, 1), learner, FewShotEpisode(support, query), num_points=1)


def test_a_learner_that_ignores_its_support_is_found_by_another_tasks_support_and_by_labels():
    assert memorisation(constants(memorises=False), "training").level == "fine"
    assert memorisation(constants(memorises=True), "training").level == "warning"


def test_labels_in_another_order_are_those_of_the_same_shot():
    episode = trainer(Sinusoid(shots=6, queries=4), imported(LEARNERS["maml"])(), num_points=1)
    exchange: Any = exchange_of(episode, "train", 5, seed=0)
    wrong = exchange.mislabelled(generator()).support
    assert wrong.y.sort(1).values.equal(exchange.episode.support.y.sort(1).values)
    assert not wrong.y.equal(exchange.episode.support.y)
    assert labels(exchange, generator()).detector == "shortcuts"


@pytest.mark.parametrize("agent", [RL2Config(hidden_size=4, head_sizes=()), PROMP])
def test_an_untrained_agent_is_scored_in_pairs_of_tasks(agent):
    exchange = exchange_of(trainer(POINT, agent), "test", 4, seed=0)
    scores = exchange.scores(torch.tensor([0, 1, 1]), torch.tensor([3, 3, 2]))
    assert scores.shape == (3,)
    assert exchange.scores(None, torch.arange(4)).shape == (4,)


# Shortcuts


class Remembers:
    """An agent that keeps what it observes."""

    block = None
    training_blocks = None

    def observe(self, state: Any, action: Any, step: Step) -> Any:
        return action, step

    def act(self, *_: Any) -> Any: ...

    prior = adapt = act


@pytest.mark.parametrize("signal", ["observations", "rewards", "actions"])
def test_a_withheld_signal_is_another_tasks_and_the_others_are_its_own(signal):
    rows, no = torch.arange(3.0), torch.zeros(3, dtype=torch.bool)
    step = Step(rows[:, None], rows[:, None], rows, no, no)
    action, read = Misled(Remembers(), signal, torch.tensor([1, 2, 0])).observe(None, rows, step)
    found = {"observations": read.obs[:, 0], "rewards": read.reward, "actions": action}
    for name, values in found.items():
        assert values.tolist() == ([1, 2, 0] if name == signal else [0, 1, 2])
    assert read.next_obs.equal(read.obs)


def test_an_untrained_agent_loses_nothing_without_a_signal_and_that_is_no_shortcut():
    finding = shortcuts(trainer(POINT, RL2Config(hidden_size=4, head_sizes=()), num_points=2), "test", 20, seed=0)
    assert finding.level == "unknown"
    assert len(finding.evidence[0].rows) == 5


# Interference


def test_cosines_by_hand():
    found = cosines(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[2.0, 0.0], [-3.0, 0.0]]))
    assert found.tolist() == [pytest.approx([1, -1]), pytest.approx([0.5**0.5, -(0.5**0.5)])]


def trial_in(agent: Any, goal: Tensor, num_points: int) -> list[Any]:
    tasks = PointTasks(goal, torch.zeros_like(goal))
    env = POINT.make_env(len(goal) * (agent.block or 8), generator())
    return list(run_trial(env, agent, tasks, num_points, generator=generator(1)))


LEARNING_IN_TRIALS = [
    PROMP,
    MAMLTRPOConfig(hidden_sizes=(8,), num_rollouts=4),
    GRID.agent,
    VariBADConfig(hidden_size=4, embedding_size=4, buffer_trials=10),
    PEARLConfig(hidden_sizes=(8,), encoder_sizes=(8,)),
]


@pytest.mark.parametrize("config", LEARNING_IN_TRIALS, ids=lambda config: type(config).__name__)
def test_the_same_experience_has_a_cosine_of_one_and_opposite_goals_less_for_gradient_steps_below_zero(
    config,
):
    agent = trainer(POINT, config).agent
    goal = torch.tensor([[0.5, 0.0], [0.5, 0.0], [-0.5, 0.0]])
    num_points = 2 if agent.block else 1
    trial = [
        part.map(lambda values: values.unflatten(1, (3, -1))[:, [0, 0, 2]].flatten(1, 2))
        for part in trial_in(agent, goal, num_points)
    ]
    found = cosines(agent.task_gradients(trial, 3, generator()))
    assert found[0, 1] == pytest.approx(1)
    assert found[0, 2] < (0 if isinstance(agent, MAML) else 0.9995)


@pytest.mark.parametrize(
    "config",
    [
        TeacherStudentConfig(latent_size=2, task_encoder_sizes=(4,), head_sizes=(4,), hidden_size=4),
        RL2Config(hidden_size=4, head_sizes=(), critic_sees="task"),
    ],
    ids=["teacher_student", "rl2"],
)
def test_gradients_are_of_trials_that_show_what_training_shows(config):
    first, second, _ = gradients(trainer(POINT, config), 3, 2, seed=0)
    assert first.shape == second.shape
    assert first.shape[0] == 3
    assert bool((first.abs().sum(1) > 0).all())
    assert not first.equal(second)


@pytest.mark.parametrize("name", ["maml", "fomaml", "reptile", "cnp", "np", "transformer"])
def test_the_mean_of_the_gradients_of_functions_is_that_of_their_batch(name):
    one = trainer(Sinusoid(shots=4, queries=6), imported(LEARNERS[name])(), num_points=1)
    learner: Any = one.agent
    if name == "reptile":
        assert interference(one, None, 3, 1, seed=0).level == "unknown"
        return
    first, _, tasks = gradients(one, 3, 1, seed=0)
    assert first.shape[0] == 3
    assert bool(first.isfinite().all())
    assert tasks is not None
    if name == "transformer":
        episode = one.family.episode(3, "train", generator=generator())
        of_each = learner.task_gradients(episode, 3, generator())
        query = episode.query
        adaptation = learner.adaptation
        predicted = adaptation.predict(adaptation.adapt(adaptation.prior(3), episode.support), query.x)
        slopes = torch.autograd.grad((predicted - query.y).square().mean(), list(adaptation.parameters()))
        whole = torch.cat([slope.flatten() for slope in slopes])
        torch.testing.assert_close(of_each.mean(0), whole, atol=1e-5, rtol=1e-4)


def test_interference_has_a_transfer_matrix_in_the_order_of_the_parameter():
    one = trainer(Sinusoid(shots=4, queries=6), imported(LEARNERS["maml"])(), num_points=1)
    finding = interference(one, exchange_of(one, "train", 12, seed=0), 5, 1, seed=0)
    assert np.array(finding.matrix).shape == (5, 5)
    assert finding.numbers["cosine_same_task"] > finding.numbers["cosine_different_tasks"]


# Meta-overfitting and reward hacking


def evaluation(split: str, mean: float, metrics: dict[str, Tensor] | None = None) -> Evaluation:
    scores = mean + torch.randn(1, 100, generator=generator(len(split)))
    return Evaluation.of(scores, family="f", agent="a", split=split, measure=RETURN, metrics=metrics)


@pytest.mark.parametrize(("test", "level"), [(10.0, "fine"), (5.0, "warning"), (12.0, "fine")])
def test_a_gap_between_training_and_test_tasks_is_overfitting(test, level):
    finding = overfitting({"train": evaluation("train", 10.0), "test": evaluation("test", test)})
    assert finding.level == level
    assert finding.numbers["gap_test"] == pytest.approx(10 - test, abs=0.5)


def test_ranks_are_correlated_and_a_constant_with_nothing():
    assert rank_correlation(np.array([1.0, 2, 9]), np.array([0.0, 5, 6])) == pytest.approx(1)
    assert rank_correlation(np.array([1.0, 2, 9]), np.array([3.0, 2, -1])) == pytest.approx(-1)
    assert rank_correlation(np.array([1.0, 2, 9]), np.ones(3)) == 0


@pytest.mark.parametrize(("name", "sign", "level"), [("velocity", 1, "fine"), ("velocity_error", 1, "warning")])
def test_returns_that_rise_with_an_error_are_flagged(name, sign, level):
    one = evaluation("test", 0.0)
    assert one.per_task is not None
    metric = sign * torch.tensor(one.per_task.scores)
    assert (
        reward_hacking(replace(one, per_task=replace(one.per_task, metrics={name: metric.tolist()})), []).level == level
    )


def test_the_parts_of_a_return_are_not_measured_besides_it_and_ends_for_a_reason_are_bad():
    rising = torch.linspace(0, 1, 100)[None]
    one = evaluation("test", 0.0, {"reward_energy": -rising, "ended_by_tilt": rising})
    assert one.per_task is not None
    one = replace(one, per_task=replace(one.per_task, scores=rising.tolist()))
    finding = reward_hacking(one, [])
    assert finding.verdict == "tasks with more return are worse in ended_by_tilt"
    assert [row[0] for row in finding.evidence[0].rows] == ["ended_by_tilt"]


def test_a_metric_that_gets_worse_while_the_return_rises_is_flagged():
    log = [{"meta_test/return/ep_1": float(at), "meta_test/upright/ep_1": -float(at)} for at in range(6)]
    one = evaluation("test", 0.0, {"upright": torch.ones(1, 100)})
    assert reward_hacking(one, []).level == "fine"
    finding = reward_hacking(one, log)
    assert finding.verdict == "while the return rose in training, upright got worse"


# The command


def test_the_command_gives_a_verdict_for_each_detector_and_the_report_shows_them(tmp_path, capsys):
    metarl.train(GRID, run_dir=tmp_path / "run", log=(), progress=False)
    where = str(tmp_path / "run")
    status, output, _ = command(capsys, "diagnose", where, "--tasks", "10", "--pair-tasks", "3", "--copies", "2")
    assert status == 0
    saved = json.loads((tmp_path / "run" / "diagnosis_latest_s0.json").read_text())
    found = {finding["detector"]: finding for finding in saved["findings"]}
    assert list(found) == [
        "meta-overfitting",
        "memorisation",
        "shortcuts",
        "interference",
        "forgetting",
        "reward hacking",
    ]
    assert all(finding["verdict"] in output for finding in found.values())
    assert found["forgetting"]["verdict"].startswith("cannot be told: the run keeps checkpoints of one iteration only")
    assert found["reward hacking"]["verdict"] == "the family measures nothing besides the return"
    assert (tmp_path / "run" / "diagnosis_latest_s0_transfer.png").read_bytes()[:4] == b"\x89PNG"
    report = tmp_path / "report.html"
    assert command(capsys, "report", where, "--out", str(report))[0] == 0
    assert "the family measures nothing besides the return" in report.read_text()
    (tmp_path / "run" / "diagnosis_latest_s0.json").write_text('{"findings": [{}]}')
    assert command(capsys, "report", where, "--out", str(report))[0] == 0
    assert "cannot read diagnosis_latest_s0.json" in report.read_text()


@pytest.mark.parametrize(("peak", "level"), [(1.0, "warning"), (-1.0, "fine")])
def test_forgetting_is_the_loss_since_the_best_earlier_checkpoint_on_tasks_that_did_not_choose_it(peak, level):
    noise = torch.randn(3, 40, generator=generator())
    scores = {5: noise[0], 10: peak + 0.1 * noise[1], 15: 0.1 * noise[2]}
    best, lost = _lost(scores, RETURN)
    assert best == (10 if peak > 0 else 5)
    assert lost.mean == pytest.approx(float((scores[best] - scores[15])[1::2].mean()))
    assert (lost.low > 0) == (level == "warning")


def test_forgetting_is_looked_for_at_every_checkpoint_that_is_kept(tmp_path):
    experiment = Experiment(
        Sinusoid(shots=4, queries=6),
        imported(LEARNERS["maml"])(hidden_sizes=(4,)),
        TrainConfig(num_iterations=6, num_tasks=4, num_points=2, keep_every=2),
    )
    run = metarl.train(experiment, run_dir=tmp_path, log=(), progress=False)
    assert run.checkpoints() == ["best", "iteration_2", "iteration_4", "iteration_6", "latest"]
    finding = forgetting(run, experiment, 6, seed=0)
    assert [row[0] for row in finding.evidence[0].rows] == ["2", "4", "6"]
    assert "of 2 before 6" in finding.verdict
    first, again = (restored(experiment, run, "iteration_2", to_train=False) for _ in range(2))
    assert _first_tasks(first, 6, seed=0).equal(_first_tasks(again, 6, seed=0))
    assert metarl.load(run, checkpoint="iteration_4") is not None


def test_the_first_tasks_of_an_agent_are_those_that_its_training_drew_first(monkeypatch):
    sample, drawn = GridNavi.sample, []

    def noted(family: GridNavi, *words: Any) -> Any:
        tasks = sample(family, *words)
        drawn.append(tasks.goal)
        return tasks

    monkeypatch.setattr(GridNavi, "sample", noted)
    experiment = replace(GRID, train=replace(GRID.train, num_tasks=3))
    trained, fresh = experiment.trainer(), experiment.trainer()
    drawn.clear()
    for _ in range(2):
        trained.iterate()
    goals = torch.cat(drawn)
    drawn.clear()
    assert _first_tasks(fresh, 5, seed=0).shape == (5,)
    assert torch.cat(drawn).equal(goals)


def test_numbers_that_are_too_small_are_refused(capsys):
    status, _, errors = command(capsys, "diagnose", "grid_navi/rl2", "--tasks", "3")
    assert (status, errors) == (2, "metarl: --tasks is 3; must be at least 10\n")
    assert command(capsys, "diagnose", "grid_navi/rl2", "--pair-tasks", "1")[2].endswith("must be at least 2\n")
