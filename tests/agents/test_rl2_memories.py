"""RL2 with each of its memories: learning sees what acting saw, also where rows end at times of their own."""

import copy
import re
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from agents.memories import MEMORIES
from agents.ppo import losses_of
from agents.rl2 import RL2, Experience, RL2Config
from envs.torch_families.bandits import BernoulliBandit
from envs.torch_families.torch_env import TorchEnv
from metarl.adaptation.snail import SnailConfig
from metarl.adaptation.splagger import SplAggerConfig
from metarl.adaptation.transformer import TransformerConfig
from metarl.records import Record
from metarl.rl.rollouts import collect
from metarl.trainer import TrainConfig, Trainer

SNAIL = SnailConfig(filters=(4,), key_sizes=(4,), value_sizes=(4,), length=16)
SETTINGS: dict[str, dict[str, Any]] = {
    **{name: {"memory": memory} for name, memory in MEMORIES.items() if name != "none"},
    "snail": {"memory": SNAIL},
    **{
        f"transformer_{kind}": {"memory": TransformerConfig(positions=kind)}
        for kind in ("none", "learned", "sinusoidal")
    },
}
every_memory = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)


@dataclass(frozen=True)
class Edges(Record):
    distance: Tensor  # [N] from the start to either edge


class Ledge:
    """Steps left and right on a line, until one falls off: each row's episodes end at times of their own."""

    horizon = 7
    observation_space = spaces.Box(-5, 5, (1,))
    action_space = spaces.Discrete(3)

    def initial_state(self, tasks: Edges, generator: torch.Generator) -> Tensor:
        return torch.zeros_like(tasks.distance)

    def transition(self, tasks: Edges, state: Tensor, action: Tensor, generator: torch.Generator) -> Tensor:
        return state + action - 1

    def reward(
        self, tasks: Edges, state: Tensor, action: Tensor, next_state: Tensor, generator: torch.Generator
    ) -> Tensor:
        return next_state.abs() / tasks.distance

    def terminated(self, tasks: Edges, next_state: Tensor) -> Tensor:
        return next_state.abs() >= tasks.distance

    def observation(self, tasks: Edges, state: Tensor) -> Tensor:
        return state.unsqueeze(-1).clone()


def make(settings: dict[str, Any], **others: Any) -> RL2:
    every: dict[str, Any] = {"hidden_size": 16, "num_minibatches": 2, **settings, **others}
    generator = torch.Generator().manual_seed(0)
    spaces = (Ledge.observation_space, Ledge.action_space)
    return RL2Config(**every).make(*spaces, num_iterations=10, generator=generator)


def staggered(agent: RL2, num_rows: int = 8) -> tuple[Experience, Tensor]:
    """Trials of three episodes, and what the memory gave at each step while acting: [T, B, H]."""
    generator = torch.Generator().manual_seed(3)
    hidden, act = [], agent.act

    def watched(state, obs, generator):
        hidden.append(state.memory.hidden)
        return act(state, obs, generator)

    agent.act = watched  # type: ignore[method-assign]
    tasks = Edges(torch.arange(num_rows) % 3 + 1.0)
    trajectory = collect(TorchEnv(Ledge(), num_rows, generator), agent, tasks, 3, generator=generator)
    agent.act = act  # type: ignore[method-assign]
    lengths = trajectory.valid.sum(0)
    assert len(lengths.unique()) >= 4  # trials end at many times
    first_ends = trajectory.episode_end.long().argmax(0)
    assert len(first_ends.unique()) >= 4  # and so do first episodes
    return trajectory, torch.stack(hidden).clone()


def assert_the_same(ours: Tensor, theirs: Tensor, valid: Tensor) -> None:
    torch.testing.assert_close(ours[valid], theirs[valid], rtol=1e-4, atol=1e-5)


@every_memory
def test_learning_sees_in_each_row_what_acting_saw_until_its_trial_ended(settings):
    agent = make(settings)
    for _ in range(2):  # the second time with normalisers that are not the identity, and another policy
        trajectory, acted_on = staggered(agent)
        inputs, valid = agent._inputs(trajectory), trajectory.valid
        memory, net = agent.net.memory, agent.net
        with torch.no_grad():
            hidden = memory.unroll(memory.prior(valid.shape[1]), inputs.items)
            features = torch.cat([hidden, inputs.obs], -1)
            log_prob = net.policy(features).log_prob(trajectory.decision.action)
            assert_the_same(hidden, acted_on, valid)
            assert_the_same(net.critic(features).squeeze(-1), trajectory.decision.value, valid)
            assert_the_same(log_prob, trajectory.decision.log_prob, valid)
            for row, length in enumerate(valid.sum(0).tolist()):  # as if there were no other
                alone = memory.unroll(memory.prior(1), inputs.items[:length, row : row + 1])
                torch.testing.assert_close(alone[:, 0], acted_on[:length, row], rtol=1e-4, atol=1e-5)
        agent.update([trajectory], torch.Generator().manual_seed(0))


@every_memory
def test_what_follows_the_end_of_a_trial_changes_nothing(settings):
    trajectory, _ = staggered(make(settings))
    generator = torch.Generator().manual_seed(0)
    odd = torch.where(trajectory.valid, trajectory.reward, torch.randn(trajectory.reward.shape, generator=generator))
    odd_obs = torch.where(trajectory.valid[..., None], trajectory.obs, 9.0)
    updated = []
    for reward, obs in ((trajectory.reward, trajectory.obs), (odd, odd_obs)):
        agent = make(settings)
        experience = Experience(**{**vars(trajectory), "reward": reward, "obs": obs})
        agent.update([experience], torch.Generator().manual_seed(1))
        updated.append(torch.cat([p.detach().flatten() for p in agent.net.parameters()]))
    assert torch.equal(*updated)


@every_memory
def test_the_gradient_reaches_every_parameter(settings):
    agent = make(settings, encoder_sizes=(8,))
    trajectory, _ = staggered(agent)
    evaluated = agent._evaluate(agent._inputs(trajectory), trajectory.decision.action)
    losses = losses_of(agent.config, agent._batch(trajectory), evaluated)
    sum(losses[:3]).backward()  # type: ignore[union-attr]
    for name, parameter in agent.net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@every_memory
def test_a_state_round_trip_gives_the_same_trials_and_the_same_next_update(settings):
    first, second = make(settings), make(settings)
    first.update([staggered(first)[0]], torch.Generator().manual_seed(0))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    (ours, seen), (theirs, also_seen) = staggered(first), staggered(second)
    assert torch.equal(seen, also_seen)
    metrics = [
        agent.update([trajectory], torch.Generator().manual_seed(5))
        for agent, trajectory in ((first, ours), (second, theirs))
    ]
    assert metrics[0] == metrics[1]
    for one, other in zip(first.net.parameters(), second.net.parameters(), strict=True):
        assert torch.equal(one, other)


PROBES: dict[str, dict[str, Any]] = {
    "snail": {
        "memory": SnailConfig(filters=(16,), key_sizes=(16,), value_sizes=(16,), length=11),
        "learning_rate": 5e-3,
    },
    "splagger": {"memory": SplAggerConfig(aggregate_fraction=0.25), "learning_rate": 1e-2},
    "transformer": {
        "memory": TransformerConfig(num_layers=1, num_heads=2),
        "learning_rate": 3e-3,
    },
}


@pytest.mark.learn
@pytest.mark.parametrize("settings", PROBES.values(), ids=PROBES)
def test_meta_training_learns_to_learn_a_tiny_bandit(settings):
    """Two arms, ten pulls: knowing nothing earns 5.0; the best arm alone 6.67; playing well about 6.1."""
    config = RL2Config(hidden_size=32, head_sizes=(), final_learning_rate=1e-3, num_minibatches=2, **settings)
    family, train = BernoulliBandit(num_arms=2, num_pulls=10), TrainConfig(num_iterations=40, num_tasks=256)
    trainer = Trainer(family, config, train, agent_name="rl2", seed=0)
    before = trainer.evaluate(num_tasks=2000)
    for _ in range(trainer.config.num_iterations):
        trainer.iterate()
    after = trainer.evaluate(num_tasks=2000)
    assert before.total.mean < 5.3
    assert after.total.mean > 5.8
    assert after.points[-1].mean > after.points[0].mean + 0.06  # four standard errors: not a fixed habit


@every_memory
def test_an_update_in_segments_is_that_of_whole_trials(settings):
    trajectory, _ = staggered(make(settings))
    whole, parts = make(settings), make(settings, segment=4)
    for agent in (whole, parts):
        agent.update([trajectory], torch.Generator().manual_seed(1))
    for ours, theirs in zip(parts.net.parameters(), whole.net.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_truncated_gradients_do_not_reach_earlier_segments():
    def slope_of_the_first_item(**settings: Any) -> float:
        agent = make({}, **settings)
        trajectory, _ = staggered(agent)
        inputs = agent._inputs(trajectory)
        items = inputs.items.clone().requires_grad_()
        value = agent._evaluate(replace(inputs, items=items), trajectory.decision.action).value
        (slope,) = torch.autograd.grad(value[6].sum(), items)
        return float(slope[0].abs().sum())

    whole = slope_of_the_first_item()
    assert whole > 0
    assert slope_of_the_first_item(segment=4) == pytest.approx(whole, rel=1e-4)
    assert slope_of_the_first_item(segment=4, truncate=True) == 0
    assert slope_of_the_first_item(segment=8, truncate=True) == pytest.approx(whole, rel=1e-4)


def test_segments_bound_what_an_update_keeps():
    def kept(**settings: Any) -> int:
        agent, numbers = make({}, **settings), []
        trajectory, _ = staggered(agent)
        inputs = agent._inputs(trajectory)
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: numbers.append(tensor.numel()) or tensor, _same):
            agent._evaluate(inputs, trajectory.decision.action)
        return sum(numbers)

    assert kept(segment=4) < kept() / 20


def _same(tensor: Tensor) -> Tensor:
    return tensor


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"memory": "rnn"}, "memory is 'rnn'; must be one of RecurrentConfig, SnailConfig, TransformerConfig"),
        ({"truncate": True}, "truncate is True; must be False without a segment"),
        ({"segment": 0}, "segment is 0"),
        (
            {"memory": TransformerConfig(), "hidden_size": 20},
            "hidden_size is 20; with 4 heads and positions 'rotary' it must be a multiple of 8",
        ),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
def test_settings_of_a_memory_that_do_not_fit_are_named(settings, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        RL2Config(**settings)


def test_a_trial_longer_than_learned_positions_is_refused_before_it_begins():
    transformer = TransformerConfig(positions="learned", max_items=20)
    config = RL2Config(memory=transformer)

    def made(num_pulls: int) -> Trainer:
        return Trainer(
            BernoulliBandit(num_pulls=num_pulls), config, TrainConfig(1, num_tasks=2), agent_name="rl2", seed=0
        )

    assert made(19).iterate()["rollout/ep_len_mean"] > 0
    with pytest.raises(ValueError, match="a trial has 20 steps; this agent's memory can read at most 19"):
        made(20)
