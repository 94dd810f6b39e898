"""Recipes reach what they expect: the ones that take a few minutes, run whole."""

import pytest

from experiments.experiment.definition import Expected, load
from metarl.evaluation import Evaluation

pytestmark = pytest.mark.learn


def reached(evaluation: Evaluation, expected: Expected) -> float:
    """What is expected to be high, or low: of the whole trial, or of one point of the curve."""
    if expected.point is None:
        return evaluation.total.mean
    return evaluation.points[expected.point - evaluation.measure.first].mean


@pytest.mark.parametrize(
    "name",
    [
        "bernoulli_bandit/rl2",
        "grid_navi/rl2",
        "own_robot/rl2",
        "sinusoid/maml",
        "sinusoid/maml_plus_plus",
        "sinusoid/cnp",
        "sinusoid/np",
        "semicircle/pearl",
    ],
)
def test_a_recipe_reaches_what_it_expects(name):
    experiment = load(name)
    expected = experiment.expected
    assert expected is not None
    trainer = experiment.trainer()
    before = reached(trainer.evaluate(num_tasks=5000), expected)
    while trainer.iteration < trainer.config.num_iterations:
        trainer.iterate()
    after = reached(trainer.evaluate(num_tasks=5000), expected)  # so many that chance plays little part
    assert not expected.is_met(before)
    assert expected.is_met(after)


@pytest.mark.parametrize("name", ["point_navigation/maml_trpo", "point_navigation/promp"])
def test_inner_steps_find_the_goal_after_a_third_of_a_recipe(name):
    trainer = load(name).trainer()
    for _ in range(30):
        trainer.iterate()
    start, first, _, third = (score.mean for score in trainer.evaluate(num_tasks=200).points)
    assert -45 < start < -34  # near the start, where no goal is
    assert first > -16
    assert third > -7
