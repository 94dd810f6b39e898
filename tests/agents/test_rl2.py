"""RL2: what its memory reads, that learning sees what acting saw, and that it learns to learn."""

import copy
from dataclasses import replace

import pytest
import torch

from agents import ppo
from agents.hypernetwork_policy import HypernetworkPolicyConfig
from agents.rl2 import RL2, Experience, RL2Config
from envs.torch_families.bandits import BernoulliBandit
from envs.torch_families.gridworld import GridNavi
from envs.torch_families.navigation import PointNavigation
from metarl.adaptation.no_memory import NoMemoryConfig
from metarl.adaptation.recurrent import RecurrentConfig
from metarl.protocols import TaskFamily
from metarl.records import ActorCriticDecision, Step, Trajectory
from metarl.rl.rollouts import collect
from metarl.trainer import TrainConfig, Trainer

GRID = GridNavi(horizon=4)


def make(family: TaskFamily, **settings) -> RL2:
    config = RL2Config(**{"hidden_size": 16, **settings})
    generator = torch.Generator().manual_seed(0)
    return config.make(family.observation_space, family.action_space, num_iterations=10, generator=generator)


def trials(family: TaskFamily, agent: RL2, num_rows: int = 6, num_episodes: int = 3):
    generator = torch.Generator().manual_seed(1)
    tasks = family.sample(num_rows, "train", generator)
    return collect(family.make_env(num_rows, generator), agent, tasks, num_episodes, generator=generator)


def losses(agent: RL2, trajectory: Experience) -> ppo.Losses:
    """PPO's losses on a whole batch."""
    evaluated = agent._evaluate(agent._inputs(trajectory), trajectory.decision.action)
    return ppo.losses_of(agent.config, agent._batch(trajectory), evaluated)


discrete_and_continuous = pytest.mark.parametrize(
    "family", [GridNavi(horizon=5), PointNavigation(horizon=5)], ids=["discrete", "continuous"]
)


@discrete_and_continuous
@pytest.mark.parametrize(
    "settings",
    [{}, {"memory": RecurrentConfig("lstm")}, {"whole_transition": True}, {"policy": HypernetworkPolicyConfig()}],
    ids=str,
)
def test_learning_sees_the_policy_that_acted(family, settings):
    agent = make(family, **settings)
    for _ in range(2):  # the second time with normalisers that are not the identity
        trajectory = trials(family, agent)
        *_, kl, clipped = losses(agent, trajectory)
        assert kl < 1e-9
        assert clipped == 0
        agent.update([trajectory], torch.Generator().manual_seed(0))


@discrete_and_continuous
def test_the_gradient_reaches_every_parameter(family):
    agent = make(family, encoder_sizes=(8,))
    trajectory = trials(family, agent)
    sum(losses(agent, trajectory)[:3]).backward()  # type: ignore[union-attr]
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


@discrete_and_continuous
@pytest.mark.parametrize("settings", [{}, {"memory": RecurrentConfig("lstm"), "whole_transition": True}], ids=str)
def test_without_the_reward_as_input_the_policy_is_the_same_whatever_the_rewards(family, settings):
    agent = make(family, reward_input=False, **settings)
    trajectory = trials(family, agent)
    other = replace(trajectory, reward=trajectory.reward + 1)
    evaluated = [agent._evaluate(agent._inputs(each), each.decision.action) for each in (trajectory, other)]
    assert torch.equal(evaluated[0].log_prob, evaluated[1].log_prob)
    torch.testing.assert_close(evaluated[0].log_prob, trajectory.decision.log_prob, rtol=1e-4, atol=1e-5)
    reads = make(family, **settings)
    hidden = [reads._evaluate(reads._inputs(each), each.decision.action).log_prob for each in (trajectory, other)]
    assert not torch.equal(*hidden)


def test_without_a_memory_the_policy_reads_the_observation_alone():
    agent = make(GRID, memory=NoMemoryConfig())
    for _ in range(2):
        trajectory = trials(GRID, agent)
        *_, kl, clipped = losses(agent, trajectory)
        assert kl < 1e-9
        assert clipped == 0
        agent.update([trajectory], torch.Generator().manual_seed(0))
    obs = torch.eye(25)[:1].expand(2, -1)
    no = torch.zeros(2, dtype=torch.bool)
    state = agent.observe(agent.prior(2), torch.tensor([0, 1]), Step(obs, obs, torch.tensor([0.0, 1.0]), no, ~no))
    torch.testing.assert_close(*agent.act(state, obs, None).value)
    assert all(parameter.grad is not None for parameter in agent.net.parameters())


def test_layers_before_a_memory_that_is_not_there_are_refused():
    with pytest.raises(ValueError, match=r"encoder_sizes is \(8,\); must be empty without a memory"):
        RL2Config(memory=NoMemoryConfig(), encoder_sizes=(8,))


def test_credit_crosses_episodes_only_where_it_is_asked_to():
    family = BernoulliBandit(num_arms=2, num_pulls=3)
    for across in (True, False):
        agent = make(family, credit_across_episodes=across, gamma=1.0, lam=1.0, normalise_reward=False)
        trajectory = trials(family, agent)
        target = agent._batch(trajectory).target
        reward = trajectory.reward
        expected = reward.flip(0).cumsum(0).flip(0) if across else reward
        torch.testing.assert_close(target, expected)


def by_hand(agent: RL2) -> Experience:
    """Two episodes of two steps; the second row's trial is over after three steps, and a fourth has odd numbers."""
    truth = torch.tensor([[True, True], [True, True], [True, True], [True, False]])
    reward = torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [4.0, 700.0]])
    value = torch.tensor([[10.0, 10.0], [20.0, 20.0], [30.0, 30.0], [40.0, -900.0]])
    start = torch.tensor([[True, True], [False, False], [True, True], [False, True]])
    obs, nothing = torch.zeros(4, 2, agent.obs_size), torch.zeros(4, 2, dtype=torch.bool)
    decision = ActorCriticDecision(torch.zeros(4, 2, dtype=torch.long), torch.zeros(4, 2), value)
    end = torch.tensor([[False, False], [True, True], [False, True], [True, False]])
    trial_start = torch.tensor([[True, True], [False, False], [False, False], [False, False]])
    return Trajectory(obs, decision, reward, obs, nothing, end, start, trial_start, valid=truth)


@pytest.mark.parametrize(
    ("across", "lam", "first", "second"),
    [
        (True, 1.0, [3.25, 4.5, 5.0, 4.0], [2.75, 3.5, 3.0]),  # plain discounted sums of what is credited
        (False, 1.0, [2.0, 2.0, 5.0, 4.0], [2.0, 2.0, 3.0]),
        # One-step errors 1, -3, -7, -36 and 1, -3, -27: advantages -0.75, -7, -16, -36 and -1.4375, -9.75, -27.
        (True, 0.5, [9.25, 13.0, 14.0, 4.0], [8.5625, 10.25, 3.0]),
    ],
)
def test_credit_ends_with_the_trial_and_where_asked_with_the_episode(across, lam, first, second):
    agent = make(GRID, credit_across_episodes=across, gamma=0.5, lam=lam, normalise_reward=False)
    trajectory = by_hand(agent)
    batch = agent._batch(trajectory)
    advantage, target = batch.advantage, batch.target
    assert target[:, 0].tolist() == first
    assert target[:3, 1].tolist() == second
    valid = trajectory.valid
    raw = (target - trajectory.decision.value)[valid]
    torch.testing.assert_close(advantage[valid], (raw - raw.mean()) / raw.std(correction=0))
    assert advantage[~valid].tolist() == [0.0]


def cut_short(trajectory: Experience, lengths: list[int]) -> Experience:
    """The same trials, each row's over after so many steps."""
    steps = torch.arange(len(trajectory.obs))[:, None]
    return replace(trajectory, valid=steps < torch.tensor(lengths))


def odd_where_not_valid(trajectory: Experience, seed: int) -> Experience:
    """Other numbers in all steps that are not valid."""
    generator = torch.Generator().manual_seed(seed)

    def odd(values: torch.Tensor) -> torch.Tensor:
        if values.is_floating_point():
            other = torch.randn(values.shape, generator=generator)
        else:
            other = torch.randint(2, values.shape, generator=generator).to(values.dtype)
        return torch.where(trajectory.valid.view(*trajectory.valid.shape, *[1] * (values.dim() - 2)), values, other)

    return replace(trajectory.map(odd), valid=trajectory.valid)


def updated(family: TaskFamily, trajectory: Experience, **settings) -> tuple[dict[str, float], torch.Tensor]:
    """What an update logs, and the parameters and normalisers after it; the second update, so that those matter."""
    agent = make(family, **settings)
    for seed in (0, 1):
        metrics = agent.update([trajectory], torch.Generator().manual_seed(seed))
    moments = [value.flatten().float() for part in vars(agent.moments).values() for value in vars(part).values()]
    return metrics, torch.cat([*(p.detach().flatten() for p in agent.net.parameters()), *moments])


@discrete_and_continuous
@pytest.mark.parametrize("settings", [{}, {"credit_across_episodes": False, "value_clip": 0.2}], ids=str)
def test_what_follows_the_end_of_a_trial_changes_nothing(family, settings):
    settings |= {"target_kl": None}
    trajectory = cut_short(trials(family, make(family)), [15, 11, 10, 6, 3, 1])
    metrics, state = updated(family, odd_where_not_valid(trajectory, 0), **settings)
    other_metrics, other_state = updated(family, odd_where_not_valid(trajectory, 1), **settings)
    assert metrics == other_metrics
    assert torch.equal(state, other_state)


@discrete_and_continuous
def test_steps_after_all_trials_are_over_change_nothing(family):
    trajectory = cut_short(trials(family, make(family)), [9] * 6)
    metrics, state = updated(family, odd_where_not_valid(trajectory, 0), target_kl=None)
    shorter_metrics, shorter_state = updated(family, trajectory.map(lambda value: value[:9]), target_kl=None)
    assert metrics == pytest.approx(shorter_metrics, rel=1e-4, abs=1e-6)
    torch.testing.assert_close(state, shorter_state)


def test_an_update_stops_at_the_first_minibatch_too_far_from_the_policy_that_acted(monkeypatch):
    agent = make(GRID, target_kl=0.02, num_epochs=3, num_minibatches=2)
    kls = iter([0.5, 0.029, 0.031, 0.0, 0.0, 0.0])  # the limit is 0.03; the first minibatch is learned from in any case
    loss = ppo.losses_of
    monkeypatch.setattr(ppo, "losses_of", lambda *given: loss(*given)._replace(kl=torch.tensor(next(kls))))
    metrics = agent.update([trials(GRID, agent)], torch.Generator().manual_seed(0))
    assert metrics["train/num_gradient_steps"] == 2
    assert metrics["train/approx_kl"] == pytest.approx((0.5 + 0.029 + 0.031) / 3)
    assert list(kls) == [0.0, 0.0, 0.0]


def test_without_a_limit_all_minibatches_are_learned_from():
    agent = make(GRID, target_kl=None, learning_rate=0.1, num_epochs=3, num_minibatches=2)
    metrics = agent.update([trials(GRID, agent)], torch.Generator().manual_seed(0))
    assert metrics["train/num_gradient_steps"] == 6
    assert metrics["train/approx_kl"] > 0.045  # where the default limit would have stopped it


def test_the_learning_rate_falls_from_the_first_update_to_the_last():
    agent = make(GRID, learning_rate=1e-2, final_learning_rate=1e-3, num_epochs=1)  # ten iterations
    trajectory = trials(GRID, agent)
    rates = []
    for _ in range(11):
        rates.append(agent.update([trajectory], torch.Generator())["train/learning_rate"])
        assert [group["lr"] for group in agent.ppo.optimizer.param_groups] == rates[-1:]
    assert rates == pytest.approx([1e-2 - k * 1e-3 for k in range(10)] + [1e-3])


def test_a_training_of_one_iteration_learns_at_the_first_rate():
    generator = torch.Generator().manual_seed(0)
    config = RL2Config(hidden_size=16, learning_rate=1e-2, final_learning_rate=1e-3)
    spaces = (GRID.observation_space, GRID.action_space)
    agent = config.make(*spaces, num_iterations=1, generator=generator)
    assert agent.update([trials(GRID, agent)], generator)["train/learning_rate"] == 1e-2


def test_a_learning_rate_that_would_rise_is_refused():
    with pytest.raises(ValueError, match=r"final_learning_rate is 0\.0001 and learning_rate 5e-05; the final one must"):
        RL2Config(learning_rate=5e-5)


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
    with pytest.raises(ValueError, match=rf"{field} is {value}; must"):
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
    assert after.total.mean > 5.6  # four seeds reach 5.70 to 5.80
    assert after.points[-1].mean > after.points[0].mean + 0.1  # within the trial, not by a fixed habit
