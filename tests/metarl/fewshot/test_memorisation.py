"""What keeps learners from memorising: random labels, and a cost of what is stored in weights that do not adapt."""

import math

import pytest
import torch

from metarl.fewshot.augmentation import with_label_offset, with_permuted_labels
from metarl.fewshot.bottleneck import Bottlenecked, weights_that_do_not_adapt
from metarl.fewshot.episode import FewShotEpisode
from metarl.fewshot.methods.anil import ANILConfig
from metarl.fewshot.methods.maml import MAMLConfig
from metarl.fewshot.methods.neural_processes import CNPConfig
from metarl.fewshot.methods.reptile import ReptileConfig
from metarl.fewshot.regression import Sinusoid
from metarl.records import Examples
from metarl.trainer import TrainConfig, Trainer


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trainer_of(learner, **settings) -> Trainer:
    config = TrainConfig(**{"num_iterations": 20, "num_tasks": 8, "eval_tasks": 20, **settings})
    return Trainer(Sinusoid(), learner, config, agent_name="learner", seed=0)


def test_permuted_labels_are_a_renumbering_per_task_alike_in_support_and_queries():
    support, query = torch.arange(4).repeat(300, 1), torch.arange(4).repeat(300, 2)
    episode = FewShotEpisode(Examples(torch.zeros(300, 4, 1), support), Examples(torch.zeros(300, 8, 1), query))
    changed = with_permuted_labels(episode, seeded())
    assert torch.equal(changed.query.y, changed.support.y.repeat(1, 2))
    assert torch.equal(changed.support.y.sort(1).values, support)
    assert len({tuple(row) for row in changed.support.y.tolist()}) == math.factorial(4)


def test_a_label_offset_is_one_number_per_task():
    episode = Sinusoid().episode(400, "train", generator=seeded())
    changed = with_label_offset(episode, 2.0, seeded())
    offset = changed.support.y - episode.support.y
    torch.testing.assert_close(offset, offset[:, :1].expand_as(offset))
    torch.testing.assert_close(changed.query.y - episode.query.y, offset)
    assert float(offset[:, 0].std()) == pytest.approx(2, rel=0.1)


def test_only_training_labels_are_augmented():
    plain, augmented = trainer_of(CNPConfig()), trainer_of(CNPConfig(label_offset=3.0))
    assert plain.evaluate().tasks_hash == augmented.evaluate().tasks_hash
    drawn = [trainer.source.draw(trainer.agent).experience for trainer in (plain, augmented)]
    assert torch.equal(drawn[0].support.x, drawn[1].support.x)
    assert not torch.equal(drawn[0].support.y, drawn[1].support.y)
    trainer_of(ReptileConfig(label_offset=1.0)).iterate()


def test_the_weights_that_do_not_adapt_are_those_without_a_copy_per_task():
    anil, cnp = (trainer_of(config).agent for config in (ANILConfig(), CNPConfig(hidden_sizes=(8,), latent_size=4)))
    assert [tuple(weight.shape) for weight in weights_that_do_not_adapt(anil.adaptation)] == [(40, 1), (40, 40)]
    shapes = [tuple(weight.shape) for weight in weights_that_do_not_adapt(cnp.adaptation)]
    assert shapes == [(8, 2), (4, 8), (8, 5), (2, 8)]


def test_the_cost_is_the_kl_divergence_and_its_gradient():
    agent = trainer_of(CNPConfig(information_cost=0.5, hidden_sizes=(8,), latent_size=4)).agent
    assert isinstance(agent, Bottlenecked)
    normal = torch.distributions.Normal
    pairs = list(zip(agent.weights, agent.log_std, strict=True))
    each = [torch.distributions.kl_divergence(normal(w, s.exp()), normal(0.0, 1.0)).sum() for w, s in pairs]
    kl = torch.stack(each).sum()
    assert agent.information() == pytest.approx(float(kl.detach()), rel=1e-5)
    expected = torch.autograd.grad(0.5 * kl, [*agent.weights, *agent.log_std])
    agent._means = [weight.detach().clone() for weight in agent.weights]
    agent._noise = [torch.zeros_like(weight) for weight in agent.weights]
    agent._settle()  # as after a loss that does not depend on them
    found = [value.grad for value in (*agent.weights, *agent.log_std)]
    for left, right in zip(found, expected, strict=True):
        torch.testing.assert_close(left, right)


def test_updates_are_of_the_means_and_a_high_cost_empties_the_weights():
    trainer = trainer_of(ANILConfig(information_cost=1e-3), num_iterations=300)
    rows = [trainer.iterate() for _ in range(300)]
    assert rows[-1]["train/information"] < 0.5 * rows[0]["train/information"]
    before = [weight.detach().clone() for weight in trainer.agent.weights]
    trainer.evaluate()
    assert all(torch.equal(one, other) for one, other in zip(before, trainer.agent.weights, strict=True))


def test_training_with_a_bottleneck_resumes_exactly():
    whole, first, second = (trainer_of(ANILConfig(information_cost=1e-4)) for _ in range(3))
    rows = [whole.iterate() for _ in range(4)]
    for _ in range(2):
        first.iterate()
    second.load_state_dict(first.state_dict())
    for row in rows[2:]:
        other = second.iterate()
        assert (other["train/query_mse"], other["train/information"]) == (
            row["train/query_mse"],
            row["train/information"],
        )


def test_settings_that_cannot_be_are_named():
    with pytest.raises(ValueError, match=r"information_cost is 0\.1, but all weights adapt"):
        trainer_of(MAMLConfig(information_cost=0.1))
    with pytest.raises(ValueError, match="permute_labels is True; must be False for families without classes"):
        trainer_of(MAMLConfig(permute_labels=True))
    with pytest.raises(ValueError, match="label_offset is -1; must be zero or positive"):
        trainer_of(MAMLConfig(label_offset=-1))
    with pytest.raises(ValueError, match="information_cost is -1; must be zero or positive"):
        MAMLConfig(information_cost=-1)
