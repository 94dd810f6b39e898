"""Off-policy RL2: what its memories read and its targets hold, which loss reaches what, and that it learns to learn."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from gymnasium import spaces

from agents.memories import MEMORIES
from agents.rl2_sac import RL2SAC, RL2SACConfig, taken
from envs.torch_families.gridworld import GridNavi
from envs.torch_families.navigation import PointNavigation, Semicircle
from metarl.adaptation.no_memory import NoMemoryConfig
from metarl.adaptation.recurrent import RecurrentConfig
from metarl.adaptation.snail import SnailConfig
from metarl.adaptation.transformer import TransformerConfig
from metarl.adaptation.window import WindowConfig
from metarl.nets.moments import Moments
from metarl.protocols import TaskFamily
from metarl.records import Decision, Step, Trajectory
from metarl.rl.rollouts import collect
from metarl.rl.trial_buffer import EndedTrialSteps
from metarl.trainer import TrainConfig, Trainer

POINT = Semicircle(horizon=4, num_episodes=2, dense=True)
GRID = GridNavi(size=3, horizon=4, num_episodes=2)
SMALL = RL2SACConfig(hidden_size=8, head_sizes=(8,), num_gradient_steps=3, meta_batch=3, batch=4, buffer_trials=20)
SETTINGS: dict[str, tuple[TaskFamily, dict[str, Any]]] = {
    "gru": (POINT, {}),
    "lstm": (POINT, {"memory": RecurrentConfig("lstm"), "encoder_sizes": (8,)}),
    "transformer": (POINT, {"memory": TransformerConfig(num_layers=1, num_heads=2), "temperature": 0.2}),
    "snail": (POINT, {"memory": SnailConfig(filters=(4,), key_sizes=(4,), value_sizes=(4,), length=8)}),
    "window": (POINT, {"memory": WindowConfig(num_items=40, channels=4)}),
    "splagger": (POINT, {"memory": MEMORIES["splagger"]}),
    "discrete": (GRID, {}),
    "parts of trials": (POINT, {"segment": 3, "burn_in": 1}),
    "without rewards": (POINT, {"reward_input": False, "normalise_obs": False, "normalise_reward": False}),
}
every_kind = pytest.mark.parametrize(("family", "settings"), SETTINGS.values(), ids=SETTINGS)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trainer(family: TaskFamily = POINT, seed: int = 0, **settings: Any) -> Trainer:
    train = TrainConfig(num_iterations=10, num_tasks=4, eval_tasks=5)
    return Trainer(family, replace(SMALL, **settings), train, agent_name="rl2_sac", seed=seed)


def make(family: TaskFamily, **settings: Any) -> RL2SAC:
    config = replace(SMALL, **settings)
    return config.make(family.observation_space, family.action_space, num_iterations=10, generator=seeded())


def trials(family: TaskFamily, agent: RL2SAC, num_rows: int = 5) -> Trajectory[Decision]:
    generator = seeded(1)
    tasks = family.sample(num_rows, "train", generator)
    state = agent.collecting(num_rows)
    return collect(family.make_env(num_rows, generator), agent, tasks, 2, generator=generator, state=state)


@every_kind
def test_the_memories_of_learning_read_what_acting_reads(family, settings):
    """Also the first observation of an episode, and the end of the one before."""
    made = trainer(family, **settings)
    made.iterate()
    agent, read = made.agent, []
    observe = agent.observe
    agent.observe = lambda *given: read.append(observe(*given)) or read[-1]  # type: ignore[method-assign]
    trajectory = trials(family, agent)
    sequences = agent._sequences(EndedTrialSteps.of(trajectory))
    hidden = agent.actor_memory.unroll(agent.actor_memory.prior(5), sequences.items)
    acted = torch.stack([state.memory.hidden for state in read])
    torch.testing.assert_close(hidden[:-1], acted[: len(hidden) - 1], rtol=1e-4, atol=1e-5)
    assert len(hidden) == len(trajectory.obs) + 1


def test_after_a_trials_last_step_comes_the_state_that_it_led_to():
    agent = make(POINT, normalise_obs=False, normalise_reward=False)
    steps = EndedTrialSteps.of(trials(POINT, agent))
    sequences = agent._sequences(steps)
    assert torch.equal(sequences.obs[-1], steps.next_obs[-1])
    assert torch.equal(sequences.obs[4], steps.obs[4])  # where the second episode starts
    assert not torch.equal(sequences.obs[4], steps.next_obs[3])
    assert sequences.items[:, 0, -1].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]  # the last end is not one of an episode


def test_a_shorter_trial_is_read_as_if_it_were_alone():
    agent = make(POINT, normalise_obs=False)
    steps = EndedTrialSteps.of(trials(POINT, agent))
    valid = steps.valid.clone()
    valid[5:, 0] = False
    shorter = agent._sequences(replace(steps, valid=valid))
    alone = agent._sequences(steps[:5].map(lambda value: value[:, :1]))
    assert torch.equal(shorter.items[:6, :1], alone.items)
    assert torch.equal(shorter.obs[:6, :1], alone.obs)
    assert torch.equal(shorter.items[:, 1:], agent._sequences(steps).items[:, 1:])


class _Sum(torch.nn.Module):
    """Critics that say the sum of their inputs."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs.sum(-1, keepdim=True)


def test_targets_end_where_the_task_ends_the_trial_and_not_where_time_does():
    """Three trials of two steps: time ends the first; the task ends the second, and an episode within the third."""
    agent = make(POINT, memory=NoMemoryConfig(), normalise_obs=False, gamma=0.5, temperature=1e-9, reward_scale=2.0)
    obs = torch.tensor([[[1.0, 0.0]] * 3, [[2.0, 0.0]] * 3])
    end = torch.tensor([[False, False, True], [False, True, False]])
    truncated = torch.tensor([[False, False, False], [True, False, True]])
    reward, valid = torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool)
    steps = EndedTrialSteps(obs, torch.zeros(2, 3, 2), reward, obs + 5, valid, end, truncated)
    seen: list[torch.Tensor] = []
    sac: Any = agent.sac
    sac.target_critics, sac.actor.net[-1].weight.data = _Sum(), torch.zeros_like(sac.actor.net[-1].weight)
    sac.critic_loss = lambda features, action, target: seen.append(target) or target.sum()
    sac.actor.net[-1].bias.data = torch.tensor([0.0, 0.0, -20.0, -20.0])  # the action is zero
    drawn = torch.tensor([[0, 1]] * 3)
    empty = torch.zeros(3, 3, 0)
    agent._critic_loss(steps, agent._sequences(steps), drawn, empty, torch.zeros(6, 2), seeded())
    expected = [2 + 0.5 * 2, 2 + 0.5 * 12, 2 + 0.5 * 2, 2, 2 + 0.5 * 2, 2 + 0.5 * 12]
    torch.testing.assert_close(seen[0], torch.tensor(expected), rtol=0, atol=1e-3)
    agent.config = replace(agent.config, center_reward=True)
    agent.moments = replace(agent.moments, reward=Moments.of(torch.tensor([0.0, 0.5])))
    agent._critic_loss(steps, agent._sequences(steps), drawn, empty, torch.zeros(6, 2), seeded())
    torch.testing.assert_close(seen[1], torch.tensor(expected) - 2 * 0.25, rtol=0, atol=1e-3)


@every_kind
def test_each_loss_reaches_its_own_parameters_and_all_of_them(family, settings):
    made = trainer(family, **settings)
    made.iterate()
    agent: Any = made.agent
    parts = [*agent._parts().values()]
    before = {id(p): p.detach().clone() for part in parts for p in part.parameters()}
    seen: dict[str, list[int]] = {}
    step = agent._step

    def watched(name: str, loss: torch.Tensor) -> None:
        step(name, loss)
        seen[name] = [id(p) for part in parts for p in part.parameters() if not torch.equal(p, before[id(p)])]
        before.update({id(p): p.detach().clone() for part in parts for p in part.parameters()})

    agent._step = watched
    agent.gradient_step(EndedTrialSteps.of(trials(family, agent)), torch.zeros(5, dtype=torch.long), seeded())
    for name in ("critic", "actor"):
        group = agent.optimizers[name].param_groups[0]["params"]
        assert set(seen[name]) <= {id(p) for p in group}
        assert {id(p) for p in group} - set(seen[name]) <= _without_effect(parts), name
    assert all(
        not torch.equal(p, before[id(p)])
        for p in (*agent.target_memory.parameters(), *agent.sac.target_critics.parameters())
        if id(p) not in _without_effect(parts)
    )


def _without_effect(parts: list[torch.nn.Module]) -> set[int]:
    """Biases of keys in attention, and heads that a chosen action does not touch, may rest."""
    return {id(p) for part in parts for name, p in part.named_parameters() if name.endswith("bias") or p.numel() == 0}


def test_an_episodes_end_resets_nothing_and_a_new_task_everything():
    agent = make(POINT)
    obs, no = torch.zeros(1, 2), torch.zeros(1, dtype=torch.bool)
    action = torch.zeros(1, 2)
    start = agent.observe(agent.prior(1), None, Step(obs, obs, torch.zeros(1), no, no))
    paid = agent.observe(start, action, Step(obs, obs, torch.ones(1), no, ~no))
    unpaid = agent.observe(start, action, Step(obs, obs, torch.zeros(1), no, ~no))
    assert not torch.equal(paid.memory.hidden, unpaid.memory.hidden)
    later = [agent.observe(state, action, Step(obs, obs, torch.zeros(1), no, no)) for state in (paid, unpaid)]
    assert not torch.equal(later[0].memory.hidden, later[1].memory.hidden)
    again = agent.observe(agent.prior(1), None, Step(obs, obs, torch.zeros(1), no, no))
    assert torch.equal(again.memory.hidden, start.memory.hidden)


def test_a_part_of_a_trial_is_read_as_if_it_began_there_and_its_last_step_has_a_next_one():
    agent: Any = trainer(segment=3, batch=200, normalise_obs=False).agent
    whole = EndedTrialSteps.of(trials(POINT, agent))
    steps = whole[2:6]  # three steps and the one after them
    drawn, hidden = [], []
    at = agent._at
    agent._at = lambda steps, *given: drawn.append(steps) or hidden.append(given[0]) or at(steps, *given)
    agent.gradient_step(steps, torch.tensor([0, 1, 0, 2, 0]), seeded())
    assert [set(row.tolist()) for row in drawn[0]] == [{0, 1, 2}, {1, 2}, {0, 1, 2}, {2}, {0, 1, 2}]
    assert torch.equal(drawn[2], drawn[0] + 1)
    alone = agent._sequences(steps)
    torch.testing.assert_close(alone.obs[3], steps.obs[3])
    first = agent._sequences(whole).items[2]
    assert torch.equal(alone.items[0, :, :2], first[:, :2])
    assert bool((alone.items[0, :, 2:] == 0).all())


def test_tasks_do_not_leak_into_each_other():
    agent = make(POINT)
    steps = EndedTrialSteps.of(trials(POINT, agent))
    changed = replace(steps, reward=steps.reward.clone())
    changed.reward[:, 2] += 1
    one, other = (
        agent.critic_memory.unroll(agent.critic_memory.prior(5), agent._sequences(each).items)
        for each in (steps, changed)
    )
    others = torch.tensor([0, 1, 3, 4])
    assert torch.equal(one[:, others], other[:, others])
    assert not torch.equal(one[:, 2], other[:, 2])


def test_without_the_reward_as_input_acting_is_the_same_whatever_the_rewards():
    agent = make(POINT, reward_input=False)
    steps = EndedTrialSteps.of(trials(POINT, agent))
    one, other = (agent._sequences(replace(steps, reward=steps.reward + extra)).items for extra in (0, 1))
    assert torch.equal(one, other)


def test_it_explores_in_collection_and_acts_by_its_mode_elsewhere():
    agent = make(POINT)
    obs = torch.zeros(2, 2)
    mode = agent.act(agent.prior(2), obs, None).action
    assert torch.equal(agent.act(agent.prior(2), obs, seeded()).action, mode)
    assert not torch.equal(agent.act(agent.collecting(2), obs, seeded()).action, mode)
    made = trainer()
    (trajectory,), _ = made.source.draw(made.agent).experience
    assert len(trajectory.decision.action[0].unique(dim=0)) == 4  # of four tasks in one state


def test_what_is_taken_is_a_trials_own():
    values = torch.arange(12).view(4, 3)  # four steps of three trials
    assert taken(values, torch.tensor([[0, 3], [1, 1], [2, 0]])).tolist() == [0, 9, 4, 4, 8, 2]


def test_a_resumed_training_is_the_same_bit_for_bit():
    whole = trainer(buffer_trials=6)
    for _ in range(4):
        whole.iterate()
    first, second = trainer(buffer_trials=6), trainer(buffer_trials=6)
    for _ in range(2):
        first.iterate()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for _ in range(2):
        second.iterate()
    assert second.metrics == whole.metrics
    for name, part in second.agent._parts().items():
        for ours, theirs in zip(part.parameters(), getattr(whole.agent, name).parameters(), strict=True):
            assert torch.equal(ours, theirs)
    assert second.evaluate() == whole.evaluate()


def test_what_an_evaluation_needs_holds_no_trials():
    made = trainer()
    made.iterate()
    state = made.state_dict(to_train=False)
    assert "buffer" not in state["source"]
    other = trainer(seed=1)
    other.load_state_dict(state, to_train=False)
    assert other.evaluate().total == made.evaluate().total


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 0}, "batch is 0; must be at least 1"),
        ({"tau": 0.0}, r"tau is 0\.0; must be in \(0, 1\]"),
        ({"gamma": 1.5}, r"gamma is 1\.5; must be in \[0, 1\]"),
        ({"initial_temperature": 0.0}, r"initial_temperature is 0\.0; must be positive"),
        ({"burn_in": 1}, "burn_in is 1; must be at least 0 and below segment, None"),
        ({"memory": "gru"}, "memory is 'gru'; must be one of RecurrentConfig"),
        ({"memory": TransformerConfig(), "hidden_size": 12}, "hidden_size is 12; with 4 heads"),
        ({"memory": NoMemoryConfig(), "encoder_sizes": (8,)}, r"encoder_sizes is \(8,\); must be empty"),
    ],
)
def test_a_wrong_setting_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        RL2SACConfig(**settings)


def test_what_does_not_fit_the_family_is_named():
    unbounded = spaces.Box(-float("inf"), float("inf"), (2,))
    with pytest.raises(ValueError, match="must be bounded"):
        SMALL.make(POINT.observation_space, unbounded, num_iterations=1, generator=seeded())
    learned = TransformerConfig(positions="learned", max_items=8, num_heads=2)
    with pytest.raises(ValueError, match="a trial has 8 steps; this agent's memory can read at most 7"):
        trainer(memory=learned)
    with pytest.raises(ValueError, match="a buffer of 20 trials x 8 steps needs"):
        trainer(max_gigabytes=1e-6)


@pytest.mark.learn
def test_meta_training_learns_to_learn_to_find_a_goal():
    """Points start knowing nothing: at rest they have -9.6 per episode; whoever knows the goal has about -2.5."""
    family = PointNavigation(horizon=25, num_episodes=2)
    config = RL2SACConfig(
        memory=RecurrentConfig(span=25),
        hidden_size=64,
        head_sizes=(64, 64),
        num_gradient_steps=120,
        batch=32,
        gamma=0.95,
        tau=0.02,
        learning_rate=1e-3,
        temperature=0.02,
    )
    made = Trainer(family, config, TrainConfig(num_iterations=24, num_tasks=32), agent_name="rl2_sac", seed=0)
    before = made.evaluate(num_tasks=200)
    for _ in range(24):
        made.iterate()
    after = made.evaluate(num_tasks=200)
    assert before.points[1].mean < -8
    assert after.points[1].mean > -5
    assert after.points[1].mean > after.points[0].mean + 0.3  # what the first episode has shown
