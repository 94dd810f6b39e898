"""RL2: what its memory reads, that learning sees what acting saw, and that it learns to learn."""

import copy

import pytest
import torch

from agents.rl2 import RL2, RL2Config
from envs.bandits import BernoulliBandit
from envs.gridworld import GridNavi
from envs.navigation import PointNavigation
from metarl.protocols import TaskFamily
from metarl.records import Step
from metarl.rollouts import collect
from metarl.trainer import TrainConfig, Trainer


def make(family: TaskFamily, **settings) -> RL2:
    config = RL2Config(**{"hidden_size": 16, **settings})
    generator = torch.Generator().manual_seed(0)
    return config.make(family.observation_space, family.action_space, num_iterations=10, generator=generator)


def trials(family: TaskFamily, agent: RL2, num_rows: int = 6, num_episodes: int = 3):
    generator = torch.Generator().manual_seed(1)
    tasks = family.sample(num_rows, "train", generator)
    return collect(family.make_env(num_rows, generator), agent, tasks, num_episodes, generator=generator)


discrete_and_continuous = pytest.mark.parametrize(
    "family", [GridNavi(horizon=5), PointNavigation(horizon=5)], ids=["discrete", "continuous"]
)


@discrete_and_continuous
@pytest.mark.parametrize("settings", [{}, {"cell": "lstm"}, {"whole_transition": True}], ids=str)
def test_learning_sees_the_policy_that_acted(family, settings):
    agent = make(family, **settings)
    for _ in range(2):  # the second time with normalisers that are not the identity
        trajectory = trials(family, agent)
        *_, kl, clipped = agent._loss(agent._batch(trajectory))
        assert kl < 1e-9
        assert clipped == 0
        agent.update([trajectory], torch.Generator().manual_seed(0))


@discrete_and_continuous
def test_the_gradient_reaches_every_parameter(family):
    agent = make(family, encoder_sizes=(8,))
    trajectory = trials(family, agent)
    losses = agent._loss(agent._batch(trajectory))
    sum(losses[:3]).backward()  # type: ignore[union-attr]
    for name, parameter in agent.net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_memory_reads_the_last_reward_action_and_end_at_an_inner_reset():
    family = GridNavi(horizon=2)
    agent = make(family, normalise_obs=False, normalise_reward=False)
    trajectory = trials(family, agent)
    items = agent._items(trajectory, trajectory.obs)
    actions, reward, end = items[..., 25:30], items[..., 30], items[..., 31]
    assert trajectory.episode_start[2].all()
    assert end[2].all()
    assert torch.equal(reward[2], trajectory.reward[1])
    assert torch.equal(actions[2].argmax(-1), trajectory.decision.action[1])
    assert not items[0, :, 25:].any()


def test_a_whole_transition_holds_the_observation_that_was_acted_on():
    agent = make(GridNavi(horizon=2), normalise_obs=False, whole_transition=True)
    trajectory = trials(GridNavi(horizon=2), agent)
    items = agent._items(trajectory, trajectory.obs)
    assert torch.equal(items[1:, :, :25], trajectory.obs[:-1])
    assert torch.equal(items[..., 25:50], trajectory.obs)
    assert not items[0, :, :25].any()


def test_observing_an_end_differs_from_not_observing_it():
    agent = make(GridNavi())
    nothing = torch.zeros(1, dtype=torch.bool)
    obs = torch.zeros(1, 25)
    step = Step(obs, obs, torch.zeros(1), nothing, nothing)
    ended = Step(obs, obs, torch.zeros(1), nothing, ~nothing)
    action = torch.zeros(1, dtype=torch.long)
    memories = [agent.observe(agent.prior(1), action, seen).memory.hidden for seen in (step, ended)]
    assert not torch.equal(*memories)


def test_credit_crosses_episodes_only_where_it_is_asked_to():
    family = BernoulliBandit(num_arms=2, num_pulls=3)
    for across in (True, False):
        agent = make(family, credit_across_episodes=across, gamma=1.0, lam=1.0, normalise_reward=False)
        trajectory = trials(family, agent)
        _, target = agent._advantages(trajectory)
        reward = trajectory.reward
        expected = reward.flip(0).cumsum(0).flip(0) if across else reward
        torch.testing.assert_close(target, expected)


def test_a_state_round_trip_gives_the_same_next_update():
    family = GridNavi(horizon=4)
    first, second = make(family), make(family)
    first.update([trials(family, first)], torch.Generator().manual_seed(0))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    trajectory = trials(family, first)
    metrics = [agent.update([trajectory], torch.Generator().manual_seed(5)) for agent in (first, second)]
    assert metrics[0] == metrics[1]
    for ours, theirs in zip(first.net.parameters(), second.net.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("field", "value"), [("gamma", 1.5), ("hidden_size", 0), ("learning_rate", -1.0)])
def test_a_wrong_setting_is_named(field, value):
    with pytest.raises(ValueError, match=rf"{field} is {value}; it must"):
        RL2Config(**{field: value})


def probe(seed: int) -> Trainer:
    config = RL2Config(hidden_size=32, head_sizes=(), learning_rate=5e-3, final_learning_rate=1e-3, num_minibatches=2)
    return Trainer(
        BernoulliBandit(num_arms=2, num_pulls=10),
        config,
        TrainConfig(num_iterations=40, num_tasks=256),
        agent_name="rl2",
        seed=seed,
    )


def _network(trainer: Trainer) -> torch.nn.Module:
    assert isinstance(trainer.agent, RL2)
    return trainer.agent.net


def test_one_seed_is_one_run_bit_for_bit():
    first, second, other = probe(0), probe(0), probe(1)
    for trainer in (first, second, other):
        for _ in range(2):
            trainer.iterate()
    parameters = [torch.cat([p.flatten() for p in _network(t).parameters()]) for t in (first, second, other)]
    assert torch.equal(parameters[0], parameters[1])
    assert not torch.equal(parameters[0], parameters[2])


def test_meta_training_learns_to_learn_a_tiny_bandit():
    """Two arms, ten pulls: knowing nothing earns 5.0; the best arm alone 6.67; playing well about 6.1."""
    trainer = probe(0)
    before = trainer.evaluate(num_tasks=2000)
    for _ in range(40):
        trainer.iterate()
    after = trainer.evaluate(num_tasks=2000)
    assert before.total.mean < 5.3
    assert after.total.mean > 5.8
    assert after.episodes[-1].mean > after.episodes[0].mean + 0.1  # within the trial, not by a fixed habit
