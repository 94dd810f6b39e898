"""Recipes reach what they expect: the ones that take a few minutes, run whole."""

import pytest

from experiments.experiment import Expected, load
from metarl.evaluation import Evaluation

pytestmark = pytest.mark.learn


def reached(evaluation: Evaluation, expected: Expected) -> float:
    """The return that is expected to be high: of the whole trial, or of one episode."""
    score = evaluation.total if expected.episode is None else evaluation.episodes[expected.episode - 1]
    return score.mean


@pytest.mark.parametrize("name", ["bernoulli_bandit/rl2", "grid_navi/rl2", "own_robot/rl2"])
def test_a_recipe_reaches_its_expected_return(name):
    experiment = load(name)
    expected = experiment.expected
    assert expected is not None
    trainer = experiment.trainer()
    before = reached(trainer.evaluate(num_tasks=5000), expected)
    while trainer.iteration < trainer.config.num_iterations:
        trainer.iterate()
    after = reached(trainer.evaluate(num_tasks=5000), expected)  # so many that chance plays little part
    assert before < expected.at_least <= after
