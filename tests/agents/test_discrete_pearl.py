"""PEARL with discrete actions: expectations over all actions in place of draws, one-hot in contexts, and learning."""

import math
from copy import deepcopy
from typing import Any

import pytest
import torch
from gymnasium import spaces

from agents.discrete_soft_actor_critic import DiscreteSoftActorCritic
from agents.pearl import PEARLConfig
from envs.torch_families.gridworld import GridNavi
from metarl.trainer import TrainConfig, Trainer

FAMILY = GridNavi(size=3, horizon=8)
SMALL: Any = {
    "hidden_sizes": (8,),
    "encoder_sizes": (8,),
    "num_train_tasks": 4,
    "initial_episodes": 2,
    "posterior_episodes": 2,
    "extra_episodes": 2,
    "capacity": 200,
    "num_gradient_steps": 3,
    "meta_batch": 3,
    "batch": 5,
    "context": 7,
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sac_of(temperature: float | None = 0.1) -> DiscreteSoftActorCritic:
    """With three actions, one feature and no hidden layer: weights [3, 1] and biases [3]."""
    settings: Any = {"activation": "relu", "gamma": 0.5, "temperature": temperature, "regularisation": 0.0}
    return DiscreteSoftActorCritic(1, (), spaces.Discrete(3), **settings, generator=seeded())


def say(critics: torch.nn.Module, values: list[list[float]]) -> None:
    """Make the critics [2] give these values [2, 3], whatever the features."""
    weight, bias = critics.parameters()
    weight.data.zero_()
    bias.data[:] = torch.tensor(values).view(bias.shape)


def trainer(**settings: Any) -> Trainer:
    train = TrainConfig(num_iterations=3, num_tasks=2, copies=2, eval_tasks=3)
    return Trainer(FAMILY, PEARLConfig(**{**SMALL, **settings}), train, agent_name="pearl", seed=0)


def policy_of(sac: DiscreteSoftActorCritic, probabilities: list[float]) -> None:
    """Make the policy the same for all features."""
    weight, bias = sac.actor.net.parameters()
    weight.data.zero_()
    bias.data[:] = torch.tensor(probabilities).log()


def test_targets_are_expectations_of_the_lower_critic_and_the_entropy():
    sac = sac_of()
    policy_of(sac, [0.5, 0.3, 0.2])
    say(sac.target_critics, [[1.0, 5.0, 3.0], [2.0, 4.0, 9.0]])
    target = sac.targets(torch.tensor([10.0, 20.0]), torch.tensor([False, True]), torch.ones(2, 1), seeded())
    entropy = -(0.5 * math.log(0.5) + 0.3 * math.log(0.3) + 0.2 * math.log(0.2))
    value = 0.5 * 1 + 0.3 * 4 + 0.2 * 3 + 0.1 * entropy
    assert target.tolist() == pytest.approx([10 + 0.5 * value, 20.0])


def test_a_critic_is_judged_by_the_action_that_was_taken():
    sac = sac_of()
    say(sac.critics, [[1.0, 5.0, 3.0], [2.0, 4.0, 9.0]])
    action = sac.actor.from_env(torch.tensor([1, 2]))
    assert action.tolist() == [[0, 1, 0], [0, 0, 1]]
    loss = sac.critic_loss(torch.ones(2, 1), action, torch.tensor([4.0, 5.0]))
    assert float(loss.detach()) == pytest.approx((1 + 4) / 2 + (0 + 16) / 2)


def test_the_policy_that_the_loss_is_least_for_is_the_softmax_of_the_values():
    sac = sac_of(temperature=0.5)
    say(sac.critics, [[1.0, 0.5, 0.0], [1.0, 0.5, 0.0]])
    policy_of(sac, torch.tensor([2.0, 1.0, 0.0]).softmax(-1).tolist())
    loss, log_prob = sac.actor_loss(torch.ones(4, 1), seeded())
    slopes = torch.autograd.grad(loss, list(sac.actor.parameters()))
    assert all(slope.abs().max() < 1e-6 for slope in slopes)
    probabilities = torch.tensor([2.0, 1.0, 0.0]).softmax(-1)
    assert float(log_prob) == pytest.approx(float((probabilities * probabilities.log()).sum()))


def test_a_learned_temperature_keeps_the_entropy_near_that_of_a_uniform_choice():
    sac = sac_of(temperature=None)
    for entropy, sign in ((0.9 * math.log(3), 1), (0.99 * math.log(3), -1)):
        (slope,) = torch.autograd.grad(sac.temperature_loss(torch.tensor(-entropy)), sac.log_temperature)
        assert -slope.sign() == sign


@pytest.mark.parametrize("settings", [{}, {"temperature": None}, {"next_obs_in_context": True}], ids=str)
def test_every_part_learns_and_resume_is_bit_for_bit(settings):
    whole, rest = trainer(**settings), trainer(**settings)
    agent: Any = whole.agent
    before = [parameter.detach().clone() for parameter in (*agent._critic_params, *agent._actor_params)]
    whole.iterate()
    for old, new in zip(before, (*agent._critic_params, *agent._actor_params), strict=True):
        assert not torch.equal(old, new)
    rest.load_state_dict(deepcopy(whole.state_dict()))
    assert whole.iterate()["train/critic_loss"] == rest.iterate()["train/critic_loss"]
    assert whole.evaluate() == rest.evaluate()


@pytest.mark.learn
def test_goals_of_a_grid_are_inferred_after_meta_training_and_not_before():
    """In seconds: after two episodes of exploration, the third knows where the goal is."""
    config = PEARLConfig(
        hidden_sizes=(64, 64),
        encoder_sizes=(64,),
        num_train_tasks=20,
        initial_episodes=4,
        posterior_episodes=2,
        extra_episodes=0,
        num_gradient_steps=150,
        batch=16,
        context=32,
        gamma=0.9,
        reward_scale=1.0,
        temperature=0.05,
        learning_rate=2e-3,
        tau=0.02,
        kl_weight=0.01,
        actor_gain=2.0,
    )
    train = TrainConfig(num_iterations=8, num_tasks=10, copies=2, num_points=3, eval_tasks=100)
    made = Trainer(FAMILY, config, train, agent_name="pearl", seed=0)
    before = made.evaluate().points
    for _ in range(8):
        made.iterate()
    after = made.evaluate().points
    assert before[2].mean < 0
    assert after[2].mean > 2  # 3.3 here; who knows the goal has 6
    assert after[2].mean > after[0].mean + 1
