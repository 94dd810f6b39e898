"""Algorithm distillation: what its windows hold, that acting reads what learning read, and that it learns to learn."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

from agents.algorithm_distillation import ADConfig
from envs.torch_families.bandits import BernoulliBandit
from envs.torch_families.dark_room import DarkRoom
from envs.torch_families.navigation import PointNavigation
from metarl.adaptation.transformer import TransformerConfig
from metarl.protocols import KnowsActions
from metarl.records import Step
from metarl.rl.histories import AnnealedExpert, Histories, HistorySource
from metarl.rl.rollouts import collect
from metarl.task_samplers.catalog import SAMPLERS
from metarl.trainer import TrainConfig, Trainer

ROOM = DarkRoom(size=3, horizon=4, num_episodes=3)
SMALL = ADConfig(
    memory=TransformerConfig(num_layers=1, num_heads=2),
    hidden_size=8,
    context=9,
    num_histories=6,
    history_episodes=5,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trainer(family: Any = ROOM, **settings: Any) -> Trainer:
    train = TrainConfig(num_iterations=4, num_tasks=3, copies=2, eval_tasks=4)
    return Trainer(family, replace(SMALL, **settings), train, agent_name="ad", seed=0)


def source_of(made: Trainer) -> HistorySource:
    assert isinstance(made.source, HistorySource)
    return made.source


def test_windows_are_consecutive_steps_with_what_came_before():
    number = torch.arange(10.0).expand(2, -1) + torch.tensor([[0.0], [100.0]])
    length = torch.tensor([10, 6])
    histories = Histories(number[..., None], number.long(), number + 0.5, number % 2 == 1, length)
    windows = histories.windows(300, 4, seeded())
    row = (windows.obs[:, 0, 0] >= 100).long()
    first = windows.obs[:, 0, 0] - 100 * row
    assert torch.equal(windows.obs[..., 0], first[:, None] + 100 * row[:, None] + torch.arange(4))
    assert torch.equal(windows.action, windows.obs[..., 0].long())
    assert set(first[row == 0].tolist()) == set(range(7))
    assert set(first[row == 1].tolist()) == set(range(3))
    assert torch.equal(windows.is_first, windows.obs[..., 0] % 100 == 0)
    later = ~windows.is_first
    assert torch.equal(windows.last_reward[later], windows.obs[..., 0][later] - 0.5)
    assert torch.equal(windows.last_action[later], windows.action[later] - 1)
    assert torch.equal(windows.last_end[later], windows.action[later] % 2 == 0)
    with pytest.raises(ValueError, match="context is 7; a history has only 6 steps"):
        histories.windows(1, 7, seeded())


@pytest.mark.parametrize("family", [ROOM, BernoulliBandit()], ids=["room", "bandit"])
def test_an_annealed_expert_is_random_at_first_and_optimal_at_last(family: Any):
    assert isinstance(family, KnowsActions) is True
    tasks = family.sample(4000, "train", seeded())
    expert, obs = AnnealedExpert(family, tasks, 11), torch.zeros(4000, family.observation_space.shape[0])
    best = family.optimal_actions(tasks, obs)
    right = []
    for step in (0, 5, 10):
        action = expert.act(step, obs, seeded()).action
        right.append(float((best.gather(1, action[:, None]) > 0).float().mean()))
    chance = float((best > 0).float().mean())
    assert right[0] == pytest.approx(chance, abs=0.03)
    assert right[1] == pytest.approx((1 + chance) / 2, abs=0.03)
    assert right[2] == 1


def test_optimal_actions_of_what_is_seen_are_those_of_the_labels():
    data = ROOM.labelled_transitions(tasks := ROOM.sample(5, "train", seeded()), 7, seeded(1))
    rows = tasks.repeat_interleave(8)
    assert torch.equal(ROOM.optimal_actions(rows, data.query.flatten(0, 1)), data.optimal.flatten(0, 1))


def test_histories_get_better_and_are_in_training_tasks_only():
    made = trainer(DarkRoom(size=5, horizon=12), num_histories=200, history_episodes=12)
    reward = source_of(made).histories.reward.unflatten(1, (12, 12)).sum(-1).mean(0)
    assert reward[-1] > 3 * reward[0]
    training = set(made.family.sample(2000, "train", seeded()).goal.tolist())
    histories = source_of(made).histories
    paid = histories.reward[:, :-1] > 0
    places = (histories.obs[:, 1:][paid & ~histories.episode_end[:, :-1]] * 4).round().long()
    assert set((places[:, 0] * 5 + places[:, 1]).tolist()) <= training


def test_learning_reads_what_acting_reads():
    made = trainer(history_episodes=3, context=12)
    agent: Any = made.agent
    agent.net.policy.net[-1].weight.data *= 100
    tasks = ROOM.sample(4, "train", seeded())
    trajectory = collect(ROOM.make_env(4, seeded()), agent, tasks, 3, generator=seeded())
    windows = Histories.of(trajectory).windows(50, 12, seeded())
    assert bool(windows.is_first[:, 0].all())
    likelihood = agent._log_likelihood(windows).detach()
    acted = trajectory.decision.log_prob.mT
    for row in likelihood:
        assert float((acted - row).abs().amax(1).min()) < 1e-4


def test_the_window_forgets_what_has_left_it():
    agent: Any = trainer(context=3).agent
    never, nothing = torch.zeros(1, dtype=torch.bool), torch.zeros(1)

    def read(rewards: list[float]) -> torch.Tensor:
        obs, state = torch.zeros(1, 2), agent.prior(1)
        state = agent.observe(state, None, Step(obs, obs, nothing, never, never))
        for reward in rewards:
            state = agent.observe(
                state, torch.zeros(1, dtype=torch.long), Step(obs, obs, nothing + reward, never, never)
            )
        return state.hidden

    assert torch.equal(read([5.0, 0, 0, 0]), read([0.0, 0, 0, 0]))  # one layer: nothing of it is left
    assert not torch.equal(read([0.0, 5, 0, 0]), read([0.0, 0, 0, 0]))


def test_every_parameter_learns_and_a_resumed_training_is_the_same_bit_for_bit():
    first = trainer()
    before = {name: value.clone() for name, value in first.agent.net.state_dict().items()}
    first.iterate()
    assert all(not torch.equal(value, before[name]) for name, value in first.agent.net.state_dict().items())
    second = trainer()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert [first.iterate()["train/log_likelihood"] for _ in range(3)] == [
        second.iterate()["train/log_likelihood"] for _ in range(3)
    ]
    assert first.evaluate() == second.evaluate()


@pytest.mark.parametrize(
    ("family", "settings", "train", "message"),
    [
        (PointNavigation(), {}, {}, "histories is None; must be a folder written by `metarl histories`, as point_nav"),
        (ROOM, {}, {"sampler": SAMPLERS["plr"]}, "sampler is .*; must be uniform"),
        (ROOM, {"context": 21}, {}, "context is 21; must be at most 20, the shortest history"),
        (ROOM, {"history_episodes": 0}, {}, "history_episodes is 0; must be at least 1"),
        (ROOM, {"memory": TransformerConfig(positions="learned")}, {}, "positions is 'learned'; must be rotary or"),
    ],
    ids=["family", "sampler", "context", "episodes", "positions"],
)
def test_what_does_not_fit_is_named(family, settings, train, message):
    amounts = TrainConfig(num_iterations=1, num_tasks=2, **train)
    with pytest.raises(ValueError, match=message):
        Trainer(family, replace(SMALL, **settings), amounts, agent_name="ad", seed=0)


@pytest.mark.learn
def test_it_learns_to_learn_in_a_room_with_goals_that_no_history_had():
    room = DarkRoom(size=4, horizon=12, num_episodes=8)
    config = ADConfig(
        memory=TransformerConfig(num_layers=2), hidden_size=32, context=48, num_histories=2000, history_episodes=8
    )
    train = TrainConfig(num_iterations=800, num_tasks=64, eval_tasks=200)
    made = Trainer(room, config, train, agent_name="ad", seed=0)
    before = made.evaluate()
    for _ in range(800):
        made.iterate()
    after = made.evaluate()
    oracle = after.bounds["oracle"][-1]
    assert before.points[-1].mean < 0.2 * oracle
    assert after.points[-1].mean > max(0.4 * oracle, 1.3 * after.points[0].mean)
