"""The learner inside RL2's trials: its counts and values, that learning reads what acting read, and that it helps."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from gymnasium import spaces

from agents import ppo
from agents.inner_learner import InnerLearnerConfig, NoInnerLearner
from agents.rl2 import RL2, RL2Config
from envs.torch_families.dark_room import DarkRoom
from envs.torch_families.navigation import PointNavigation
from envs.torch_families.tabular import TabularMDP, TabularTasks, optimal_values
from metarl.errors import UserError
from metarl.protocols import TaskFamily
from metarl.records import Step
from metarl.rl.rollouts import collect
from metarl.trainer import TrainConfig, Trainer

MDP = TabularMDP(num_states=3, num_actions=2, horizon=4, num_episodes=3)
EYE = torch.eye(3)
NEVER = torch.zeros(1, dtype=torch.bool)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(family: TaskFamily = MDP, **settings: Any) -> RL2:
    config = RL2Config(**{"hidden_size": 8, "inner": InnerLearnerConfig(), **settings})
    return config.make(family.observation_space, family.action_space, num_iterations=10, generator=seeded())


def step_to(cell: int, reward: float, *, terminated: bool = False, then: int | None = None) -> Step:
    next_obs = EYE[cell : cell + 1]
    obs = next_obs if then is None else EYE[then : then + 1]
    return Step(obs, next_obs, torch.tensor([reward]), torch.tensor([terminated]), NEVER)


def test_counts_and_values_by_hand():
    """Action 1 leads from cell 0 to cell 1 and earns 4; there, action 0 ends the episode and earns 2."""
    learner = InnerLearnerConfig(gamma=0.5, num_sweeps=10).make(3, spaces.Discrete(2), torch.device("cpu"))
    zero, one = torch.eye(2)[:1], torch.eye(2)[1:]
    state = learner.observe(learner.prior(1), torch.zeros(1, 2), step_to(0, 0.0))
    assert learner.features(state).tolist() == [[0, 0, 1, 1]]
    state = learner.observe(state, one, step_to(1, 4.0))
    state = learner.observe(state, zero, step_to(2, 2.0, terminated=True, then=0))
    # In cell 1, action 0 earns 2 and ends; in cell 0, action 1 earns 4 and then half of that 2.
    torch.testing.assert_close(learner.features(state), torch.tensor([[0, 0.5 * 5, 1, 0.5]]))
    assert state.led_to.sum() == 1  # what the task ends leads nowhere
    assert state.count[0].tolist() == [[0, 1], [1, 0], [0, 0]]
    state = learner.observe(state, one, step_to(0, 0.0))  # now the action led to cell 1 once, and back once
    value = 2 + 0.5 * (0.5 * 2 + 0.5 * state.value[0, 0, 1])
    assert float(state.value[0, 0, 1]) == pytest.approx(float(value), abs=1e-3)


def test_values_become_those_of_the_mdp():
    """A chain without chance, seen often: the inner values are the discounted optima."""
    chance = torch.zeros(1, 3, 2, 3)
    for cell in range(3):
        chance[0, cell, 0, cell], chance[0, cell, 1, (cell + 1) % 3] = 1, 1
    mean = torch.tensor([[[0.1, 0.0], [0.3, 0.0], [1.0, 0.0]]])
    learner = InnerLearnerConfig(gamma=0.5, num_sweeps=3).make(3, spaces.Discrete(2), torch.device("cpu"))
    state, cell = learner.observe(learner.prior(1), torch.zeros(1, 2), step_to(0, 0.0)), 0
    for turn in range(60):
        action = int(turn % 3 != 0)
        after = int(chance[0, cell, action].argmax())
        state = learner.observe(state, torch.eye(2)[action : action + 1], step_to(after, float(mean[0, cell, action])))
        cell = after
    each = torch.zeros(3, 2)
    for _ in range(50):
        each = mean[0] + 0.5 * (chance[0] @ each.amax(1))
    torch.testing.assert_close(state.value[0], each, rtol=1e-4, atol=1e-4)
    assert optimal_values(TabularTasks(chance, mean), 1)[0].tolist() == [pytest.approx([0.1, 0.3, 1.0])]


def test_learning_reads_what_acting_read_also_with_normalisers():
    agent, generator = make(whole_transition=True), seeded(1)
    for _ in range(2):
        tasks = MDP.sample(6, "train", generator)
        trajectory = collect(MDP.make_env(6, generator), agent, tasks, 3, generator=generator)
        evaluated = agent._evaluate(agent._inputs(trajectory), trajectory.decision.action)
        losses = ppo.losses_of(agent.config, agent._batch(trajectory), evaluated)
        assert losses.kl < 1e-9
        assert losses.clipped == 0
        agent.update([trajectory], seeded())


def test_a_new_task_clears_it_and_rows_do_not_leak():
    agent: Any = make()
    state = agent.prior(2)
    obs, no = EYE[:2], torch.zeros(2, dtype=torch.bool)
    state = agent.observe(state, None, Step(obs, obs, torch.zeros(2), no, no))
    one, other = (
        agent.observe(state, torch.tensor([1, 0]), Step(obs, obs, torch.tensor([reward, 0.0]), no, ~no))
        for reward in (1.0, 5.0)
    )
    assert not torch.equal(one.inner.value[0], other.inner.value[0])
    assert torch.equal(one.inner.value[1], other.inner.value[1])
    assert torch.equal(one.inner.count, other.inner.count)  # an episode's end forgets nothing
    assert one.inner.count.sum() == 2
    assert agent.prior(2).inner.count.sum() == 0


def test_what_it_cannot_count_is_refused():
    with pytest.raises(ValueError, match="inner is an inner learner, which counts actions; must be none"):
        make(PointNavigation())
    room = DarkRoom(size=3, horizon=4)
    agent, generator = make(room), seeded()
    trajectory = collect(room.make_env(2, generator), agent, room.sample(2, "train", generator), 1, generator=generator)
    with pytest.raises(UserError, match=r"agent\.inner is values; must be none, as observations are not one-hot"):
        agent.update([trajectory], generator)
    with pytest.raises(ValueError, match="inner is 'values'; must be a NoInnerLearner or InnerLearnerConfig"):
        RL2Config(inner="values")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"gamma is 1\.0; must be between 0 and 1"):
        InnerLearnerConfig(gamma=1.0)


def test_without_it_rl2_is_as_before():
    plain, with_values = make(inner=NoInnerLearner()), make()
    assert plain.inner is None
    assert plain.obs_size == 3
    assert with_values.obs_size == 3 + 2 * 2


@pytest.mark.learn
def test_with_it_rl2_learns_tabular_mdps_in_fewer_iterations():
    family = TabularMDP(num_states=5, num_actions=3, horizon=8, num_episodes=5)
    plain = RL2Config(hidden_size=64, activation="relu", learning_rate=2e-3, num_epochs=4, normalise_obs=False)
    reached = []
    for config in (plain, replace(plain, inner=InnerLearnerConfig())):
        made = Trainer(family, config, TrainConfig(num_iterations=60, num_tasks=256), agent_name="rl2", seed=0)
        before = made.evaluate(num_tasks=1000).total.mean
        for _ in range(60):
            made.iterate()
        reached.append(made.evaluate(num_tasks=1000).total.mean)
        assert reached[-1] > before + 3
    assert reached[1] > reached[0] + 1
