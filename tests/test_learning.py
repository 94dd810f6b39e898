"""Recipes reach what they expect: the ones that take a few minutes, run whole."""

import pytest

from experiments.experiment import load

pytestmark = pytest.mark.learn


@pytest.mark.parametrize("name", ["bernoulli_bandit/rl2", "grid_navi/rl2"])
def test_a_recipe_reaches_its_expected_return(name):
    experiment = load(name)
    expected = experiment.expected
    assert expected is not None
    trainer = experiment.trainer()
    before = trainer.evaluate(num_tasks=5000).total.mean
    while trainer.iteration < trainer.config.num_iterations:
        trainer.iterate()
    after = trainer.evaluate(num_tasks=5000).total.mean  # so many that chance plays little part
    assert before < expected.at_least <= after
