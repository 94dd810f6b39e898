"""Portfolios: the share of the gap by hand, what a support or first episodes tell, and the command."""

import json
import math
from typing import Any

import pytest
import torch

import metarl
from agents.rl2 import RL2Config
from envs.torch_families.gridworld import GridNavi
from experiments.experiment.definition import Experiment
from experiments.workbench.insight.portfolio import Scored, _distinct, choose, scored
from metarl.errors import UserError
from metarl.evaluation import RETURN
from metarl.fewshot.methods.maml import MAMLConfig
from metarl.fewshot.methods.neural_processes import CNPConfig
from metarl.fewshot.problem import ERROR
from metarl.fewshot.regression import Harmonic, Sinusoid
from metarl.trainer import TrainConfig
from tests.experiments.command import run as command

NAMES = ["a", "b"]
LEARNED = torch.tensor([[2.0, 2.0, 2.0], [1.0, 1.0, 2.5]])
TRAINED = Scored(NAMES, LEARNED, LEARNED)  # a is the single best, and what is told is right
TRAIN = TrainConfig(num_iterations=1, num_tasks=2, num_points=2)


def functions() -> list[Any]:
    experiments = [
        Experiment(Sinusoid(shots=4, queries=6), MAMLConfig(hidden_sizes=(4,)), TRAIN),
        Experiment(Harmonic(shots=4, queries=6), CNPConfig(hidden_sizes=(4,)), TRAIN),
    ]
    return [experiment.trainer() for experiment in experiments]


def grid(seed: int) -> Experiment:
    agent = RL2Config(hidden_size=4, head_sizes=())
    return Experiment(GridNavi(size=3, horizon=4, num_episodes=2), agent, TrainConfig(1, 2), seed=seed)


def test_the_share_of_the_gap_by_hand():
    scores = torch.tensor([[1.0, 1.0, 1.0, 1.0], [3.0, 3.0, 0.0, 0.0]])
    told = torch.tensor([[0.0, 5.0, 5.0, 0.0], [1.0, 0.0, 0.0, 1.0]])  # right for the first and the third task
    choice = choose(TRAINED, Scored(NAMES, scores, told), RETURN)
    assert (choice.single, choice.single_mean) == ("a", 1)
    assert choice.best_mean == 2
    assert choice.chosen_mean == pytest.approx((3 + 1 + 1 + 0) / 4)
    assert choice.closed == pytest.approx(0.25)
    assert choice.shares == [0.5, 0.5]
    assert choice.weight == 0.75  # less would take a in the third training task


def test_what_misled_on_training_tasks_is_not_followed_on_test_tasks():
    misled = Scored(NAMES, LEARNED, LEARNED.flip(0))
    scores = torch.tensor([[1.0, 1.0], [3.0, 0.0]])
    choice = choose(misled, Scored(NAMES, scores, scores), RETURN)
    assert (choice.weight, choice.shares) == (0, [1, 0])


def test_a_candidate_that_diverges_is_never_chosen_for_its_mean():
    scores = torch.tensor([[1.0, 1.0], [3.0, -torch.inf]])
    trained = Scored(NAMES, scores, scores)
    choice = choose(trained, Scored(NAMES, scores, scores), RETURN)
    assert (choice.single, choice.best_mean) == ("a", 2)
    assert choice.as_json()["means"] == [1, None]
    with pytest.raises(UserError, match="no candidate has finite scores on all training tasks"):
        choose(Scored(NAMES, scores - torch.inf, None), trained, RETURN)


def test_where_nothing_is_told_the_single_best_is_taken():
    scores = torch.tensor([[1.0, 1.0], [3.0, 0.0]])
    for told in (None, torch.zeros(2, 2)):
        choice = choose(TRAINED, Scored(NAMES, scores, told), ERROR)
        assert choice.shares == [1, 0]
        assert choice.closed == 0
        assert choice.single_mean == -1  # errors are turned round


def test_without_a_gap_there_is_no_share():
    scores = torch.tensor([[2.0, 2.0], [1.0, 1.0]])
    assert math.isnan(choose(TRAINED, Scored(NAMES, scores, None), RETURN).closed)


def test_runs_of_one_kind_of_function_with_other_ranges_are_two_families():
    few = [Sinusoid(shots=shots) for shots in (4, 5)]
    wide = Sinusoid(shots=4, amplitude=(1.0, 9.0))
    made = [Experiment(family, MAMLConfig(hidden_sizes=(4,)), TRAIN).trainer() for family in (*few, wide)]
    assert _distinct(made) == [few[0], wide]


def test_agents_of_one_family_with_other_settings_are_refused():
    other = Experiment(GridNavi(size=4, horizon=4, num_episodes=2), grid(0).agent, TrainConfig(1, 2)).trainer()
    with pytest.raises(UserError, match="act in one family; these act in grid_navi with different settings"):
        scored([grid(0).trainer(), other], NAMES, "test", 6, shots=None, first_points=1, seed=0)


def test_learners_and_steps_are_candidates_on_tasks_of_all_families():
    found = scored(functions(), NAMES, "test", 10, shots=3, first_points=0, seed=0)
    assert found.names == [*(f"a, step {step}" for step in (0, 1, 2, 5, 10, 20)), "b, example 3"]
    assert found.told is not None
    assert found.scores.shape == found.told.shape == (7, 10)
    assert bool((found.scores < 0).all())


def test_one_example_tells_nothing():
    assert scored(functions(), NAMES, "test", 10, shots=1, first_points=0, seed=0).told is None


def test_agents_are_told_apart_by_their_first_episodes():
    agents = [grid(0).trainer(), grid(1).trainer()]
    found = scored(agents, NAMES, "test", 6, shots=None, first_points=1, seed=0)
    assert found.told is not None
    assert found.scores.shape == found.told.shape == (2, 6)
    with pytest.raises(UserError, match="--first is 2; must be below 2"):
        scored(agents, NAMES, "test", 6, shots=None, first_points=2, seed=0)
    with pytest.raises(UserError, match="these runs are of both kinds"):
        scored([*functions(), *agents], NAMES, "test", 6, shots=None, first_points=1, seed=0)


def test_the_command_prints_a_table_or_json(tmp_path, capsys):
    for seed in (0, 1):
        metarl.train(grid(seed), run_dir=tmp_path / str(seed), log=(), progress=False)
    words = ("portfolio", str(tmp_path / "0"), str(tmp_path / "1"), "--tasks", "10")
    status, output, _ = command(capsys, *words)
    assert status == 0
    assert "Best in hindsight" in output
    assert len(json.loads(command(capsys, *words, "--json")[1])["means"]) == 2
    assert command(capsys, "portfolio")[2] == "metarl: which runs? metarl portfolio RUN RUN...\n"
    assert command(capsys, *words, "--shots", "0")[2] == "metarl: --shots is 0; must be at least 1\n"
