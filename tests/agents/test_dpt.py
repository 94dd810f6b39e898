"""DPT: what its labels are, that learning reads what acting reads, and that it acts on what it has read."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

from agents.dpt import DPT, DPTConfig
from envs.torch_families.bandits import BernoulliBandit, GaussianBandit
from envs.torch_families.dark_room import DarkRoom
from envs.torch_families.gridworld import GridNavi
from envs.torch_families.navigation import PointNavigation
from envs.torch_families.torch_env import TorchEnv
from metarl.adaptation.transformer import TransformerConfig
from metarl.protocols import LabelsActions, TaskFamily
from metarl.records import LabelledTransitions, Step
from metarl.rl.own_trials import LabelledTrials, OwnTrials
from metarl.task_samplers.catalog import SAMPLERS
from metarl.trainer import TrainConfig, Trainer

ROOM = DarkRoom(size=3, horizon=6, num_episodes=2)
SMALL = DPTConfig(memory=TransformerConfig(num_layers=1, num_heads=2, positions="none"), hidden_size=8, context=7)
FAMILIES: dict[str, Any] = {
    "dark_room": ROOM,
    "grid_navi": GridNavi(),
    "bernoulli": BernoulliBandit(),
    "gaussian": GaussianBandit(),
}
every_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(family: TaskFamily, **settings: Any) -> DPT:
    config = replace(SMALL, **settings)
    return config.make(family.observation_space, family.action_space, num_iterations=10, generator=seeded())


def labelled(family: Any, num_tasks: int = 5, num_steps: int = 7) -> LabelledTransitions:
    return family.labelled_transitions(family.sample(num_tasks, "train", seeded()), num_steps, seeded(1))


@every_family
def test_labels_have_the_shapes_and_the_probabilities_that_they_should(family: Any) -> None:
    data = labelled(family)
    size, actions = family.observation_space.shape[0], family.action_space.n
    assert isinstance(family, LabelsActions)
    assert data.obs.shape == data.next_obs.shape == (5, 7, size)
    assert data.action.shape == data.reward.shape == (5, 7)
    assert data.query.shape == (5, 8, size)
    assert data.optimal.shape == (5, 8, actions)
    torch.testing.assert_close(data.optimal.sum(-1), torch.ones(5, 8))


def test_in_a_room_transitions_are_the_rooms_and_the_optimal_action_leads_to_the_goal() -> None:
    room = DarkRoom(size=4)
    tasks = room.sample(30, "train", seeded())
    data = room.labelled_transitions(tasks, 20, seeded(1))
    goal = torch.stack([tasks.goal // 4, tasks.goal % 4], -1)
    for obs, action, reward, next_obs, place in zip(
        *(v.flatten(0, 1) for v in (data.obs, data.action, data.reward, data.next_obs)),
        goal.repeat_interleave(20, 0),
        strict=True,
    ):
        move = torch.tensor([(0, 1), (1, 0), (0, -1), (-1, 0), (0, 0)])[action]
        reached = ((obs * 3).round() + move).clamp(0, 3)
        assert torch.equal((next_obs * 3).round(), reached)
        assert reward == float(torch.equal(reached, place.float()))
    cell = (data.query * 3).round()  # [30, 21, 2]
    away = goal[:, None] - cell
    helps = torch.stack([away[..., 1] > 0, away[..., 0] > 0, away[..., 1] < 0, away[..., 0] < 0], -1)
    there = (away == 0).all(-1)
    assert torch.equal(data.optimal[..., :4] > 0, helps | (there[..., None] & (data.optimal[..., :4] > 0)))
    assert (data.optimal[..., 4] > 0)[there].all()
    assert not (data.optimal[..., 4] > 0)[~there].any()


def test_a_walk_goes_on_where_it_was_and_keeps_its_actions_for_a_while() -> None:
    room = DarkRoom(size=4)
    tasks = room.sample(50, "train", seeded())
    data = room.labelled_walks(tasks, 40, seeded(1))
    assert torch.equal(data.next_obs[:, :-1], data.obs[:, 1:])
    goal = torch.stack([tasks.goal // 4, tasks.goal % 4], -1)[:, None]
    assert torch.equal(data.reward > 0, ((data.next_obs * 3).round() == goal).all(-1))
    kept = (data.action[:, 1:] == data.action[:, :-1]).float().mean()
    assert kept == pytest.approx(1 - 1 / 5 + 1 / 5 / 5, abs=0.05)  # a fifth of the steps draw one of five actions


def test_some_contexts_may_be_walks() -> None:
    with pytest.raises(ValueError, match=r"walks is 1\.5; must be in \[0, 1\]"):
        DPTConfig(walks=1.5)
    train = TrainConfig(num_iterations=1, num_tasks=4)
    with pytest.raises(ValueError, match=r"walks is 0\.5; must be 0 on bernoulli_bandit"):
        Trainer(BernoulliBandit(), replace(SMALL, walks=0.5), train, agent_name="dpt", seed=0)
    with pytest.raises(ValueError, match=r"walks is 0\.1; must be 0 or large enough for one of the 4 tasks"):
        Trainer(DarkRoom(size=4), replace(SMALL, walks=0.1), train, agent_name="dpt", seed=0)
    trainer = Trainer(DarkRoom(size=4), replace(SMALL, walks=0.5), train, agent_name="dpt", seed=0)
    drawn = trainer.source.draw(trainer.agent).experience
    follows = (drawn.next_obs[:, :-1] == drawn.obs[:, 1:]).all(-1).all(-1)
    assert follows.tolist() == [True, True, False, False]


def with_own_trials(family: TaskFamily = ROOM, **settings: Any) -> Trainer:
    train = TrainConfig(num_iterations=6, num_tasks=4)
    return Trainer(family, replace(SMALL, own=0.5, **settings), train, agent_name="dpt", seed=0)


def test_some_contexts_may_be_parts_of_the_agents_own_trials() -> None:
    trainer = with_own_trials(own_every=2, own_kept=2, context=3)
    drawn = trainer.source.draw(trainer.agent)
    own = drawn.experience[2:]  # of trials of 12 steps, whose sixth ends an episode
    follows = (own.obs[:, 1:] == own.next_obs[:, :-1]).all(-1) | (own.obs[:, 1:] == 0).all(-1)
    assert follows.all()
    assert {name for name in drawn.metrics if "return" in name} == {f"meta_train/return/ep_{k}" for k in (1, 2)}
    kept = trainer.source.state_dict()["own_trials"]  # pyright: ignore[reportAttributeAccessIssue]
    steps = kept["steps"]
    assert steps["action"].shape == (4, 12)
    assert torch.equal(steps["query"][:, :-1], steps["obs"])
    stays = steps["optimal"][:, 1:, 4] > 0  # in what each step led to
    paid = (steps["reward"] > 0) & (torch.arange(1, 13) % ROOM.horizon > 0)  # but where the next episode starts
    assert paid.any()
    assert stays[paid].all()
    later = [trainer.source.draw(trainer.agent).metrics != {} for _ in range(5)]
    assert later == [False, True, False, True, False]
    assert trainer.source.state_dict()["own_trials"]["query"].shape[0] == 2 * 4


def test_a_part_of_an_own_trial_asks_what_the_agent_saw_where_it_had_that_context_and_elsewhere_otherwise() -> None:
    own, time = OwnTrials(ROOM, 1, {}), torch.arange(13.0).expand(5, 13)  # what was seen is the number of the step
    nothing, obs = torch.zeros(5, 12), time[:, :-1, None]
    steps = LabelledTransitions(obs, nothing.long(), nothing, obs + 1, time[..., None], time[..., None])
    own._kept = LabelledTrials(steps, query=-torch.ones(5, 13, 1), optimal=-torch.ones(5, 13, 1))
    parts = own.parts(400, 4, seeded())
    first = parts.obs[:, :1, 0]
    assert torch.equal(parts.obs[..., 0], first + torch.arange(4))
    asked = torch.where((first == 0) | (torch.arange(5) == 4), first + torch.arange(5), -1)
    assert torch.equal(parts.query[..., 0], asked)
    assert torch.equal(parts.optimal[..., 0], asked)
    begins = (first == 0).float().mean()
    assert begins == pytest.approx(5 / 13, abs=0.08)  # of -4 to 8, those up to 0
    assert int(first.max()) == 8


def test_trainings_with_own_trials_go_on_exactly_and_need_a_family_and_contexts_that_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, first, second = (with_own_trials(own_every=2) for _ in range(3))
    rows = [whole.iterate() for _ in range(4)]
    for _ in range(3):
        first.iterate()
    second.load_state_dict(first.state_dict())
    assert second.iterate()["train/log_likelihood"] == rows[3]["train/log_likelihood"]
    with pytest.raises(ValueError, match="context is 13; must be at most 12, the steps of a trial"):
        with_own_trials(context=13)
    with pytest.raises(ValueError, match=r"walks is 0\.75 and own 0\.5; their sum must be at most 1"):
        with_own_trials(walks=0.75)
    seven = TrainConfig(num_iterations=1, num_tasks=7)
    half = Trainer(ROOM, replace(SMALL, walks=0.5, own=0.5), seven, agent_name="dpt", seed=0)
    assert half.source.draw(half.agent).experience.action.shape == (7, 7)
    monkeypatch.setattr(TorchEnv, "steps_per_episode", None)
    with pytest.raises(ValueError, match="own must be 0 on dark_room, whose episodes may end early"):
        with_own_trials().iterate()


def test_no_test_goal_is_a_training_goal_and_the_oracle_is_the_papers() -> None:
    room = DarkRoom()
    train, test = (set(room.sample(2000, split, seeded()).goal.tolist()) for split in ("train", "test"))
    assert (len(train), len(test)) == (80, 20)
    assert not train & test
    everywhere = type(room.sample(1, "train", seeded()))(torch.arange(100))
    assert float(room.bounds(everywhere, 1)["oracle"].mean()) == pytest.approx(91.99)
    with pytest.raises(ValueError, match="split is 'ood'; must be one of train, test for dark_room"):
        room.sample(1, "ood", seeded())


def test_learning_reads_what_acting_reads() -> None:
    agent, data = make(ROOM), labelled(ROOM)
    state = agent.prior(5)
    nothing = torch.zeros(5)
    never = torch.zeros(5, dtype=torch.bool)
    acted = []
    for t in range(8):
        obs = data.obs[:, min(t, 6)]
        if t == 0:
            state = agent.observe(state, None, Step(obs, obs, nothing, never, never))
        else:  # an episode starts anew after every step, where the next transition begins
            before = t - 1
            step = Step(obs, data.next_obs[:, before], data.reward[:, before], never, ~never)
            state = agent.observe(state, data.action[:, before], step)
        logits = agent.net.answers(state.memory, data.query[:, t])
        acted.append((data.optimal[:, t] * logits.log_softmax(-1)).sum(-1).mean())
    torch.testing.assert_close(agent._log_likelihood(data), torch.stack(acted), rtol=1e-4, atol=1e-5)


def test_earlier_transitions_are_a_set_and_neither_other_tasks_nor_other_queries_matter() -> None:
    agent, data = make(ROOM), labelled(ROOM)
    mixed = torch.tensor([3, 0, 5, 1, 4, 2, 6])  # the last stays
    other_order = LabelledTransitions(
        **{name: value[:, mixed] if value.shape[1] == 7 else value for name, value in vars(data).items()}
    )
    torch.testing.assert_close(agent._log_likelihood(other_order)[-1], agent._log_likelihood(data)[-1])
    alone = torch.stack([agent._log_likelihood(data[task : task + 1]) for task in range(5)]).mean(0)
    torch.testing.assert_close(agent._log_likelihood(data), alone)
    others = torch.cat([data.query[:, :1].roll(1, 0), data.query[:, 1:]], 1)
    changed = agent._log_likelihood(replace(data, query=others))
    assert not torch.equal(changed[0], agent._log_likelihood(data)[0])
    torch.testing.assert_close(changed[1:], agent._log_likelihood(data)[1:])


def test_held_noise_samples_the_same_distribution_and_is_kept_for_some_steps() -> None:
    agent = make(ROOM, hold=3)
    state = agent.resample_latent(agent.prior(20_000), torch.ones(20_000, dtype=torch.bool), seeded())
    obs = torch.zeros(20_000, 2)
    agent.net.policy.net[-1].bias.data = torch.tensor([1.0, 0.0, -1.0, 0.5, 0.0])
    chance = agent.net.answers(state.memory[:1], obs[:1]).softmax(-1)[0].detach()
    actions = []
    for step in range(9):
        drawn = agent.act(replace(state, num_steps=torch.full((20_000,), step)), obs, seeded()).action
        torch.testing.assert_close(drawn.bincount(minlength=5) / 20_000, chance, rtol=0, atol=0.015)
        actions.append(drawn)
    assert torch.equal(actions[0], actions[2])
    assert torch.equal(actions[6], actions[8])
    agree = (actions[2] == actions[3]).float().mean()
    assert float(agree) == pytest.approx(float(chance.square().sum()), abs=0.02)  # as if they were independent
    ended = agent.resample_latent(replace(state, num_steps=state.num_steps + 5), torch.arange(20_000) < 10, seeded(1))
    assert ended.num_steps[:11].tolist() == [0] * 10 + [5]
    assert torch.equal(ended.noise[10:], state.noise[10:])
    assert not torch.equal(ended.noise[:10], state.noise[:10])


def test_every_parameter_learns_and_a_resumed_training_is_the_same_bit_for_bit() -> None:
    def trainer() -> Trainer:
        return Trainer(ROOM, SMALL, TrainConfig(num_iterations=4, num_tasks=3, eval_tasks=4), agent_name="dpt", seed=0)

    first = trainer()
    before = {name: value.clone() for name, value in first.agent.net.state_dict().items()}
    first.iterate()
    assert all(not torch.equal(value, before[name]) for name, value in first.agent.net.state_dict().items())
    second = trainer()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert [first.iterate()["train/log_likelihood"] for _ in range(3)] == [
        second.iterate()["train/log_likelihood"] for _ in range(3)
    ]
    ours, theirs = (one.evaluate("test", deterministic=True) for one in (first, second))
    assert len(ours.points) == 2
    assert ours.points == theirs.points


@pytest.mark.parametrize(
    ("family", "settings", "train", "message"),
    [
        (PointNavigation(), {}, {}, "family is point_navigation; must be one whose optimal actions are known"),
        (ROOM, {}, {"sampler": SAMPLERS["plr"]}, "sampler is .*; must be uniform"),
        (ROOM, {"context": 0}, {}, "context is 0"),
        (ROOM, {"memory": TransformerConfig(positions="learned")}, {}, "positions is 'learned'; must be another kind"),
    ],
    ids=["family", "sampler", "context", "positions"],
)
def test_what_does_not_fit_is_named(family: Any, settings: Any, train: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Trainer(
            family,
            replace(SMALL, **settings),
            TrainConfig(num_iterations=1, num_tasks=2, **train),
            agent_name="dpt",
            seed=0,
        )


@pytest.mark.learn
def test_it_finds_a_goal_that_no_training_task_had() -> None:
    room = DarkRoom(size=4, horizon=12, num_episodes=4)
    memory = TransformerConfig(num_layers=2, num_heads=4, positions="none")
    config = DPTConfig(memory=memory, context=32, hold=3)
    training = Trainer(
        room, config, TrainConfig(num_iterations=1500, num_tasks=64, eval_tasks=100), agent_name="dpt", seed=0
    )
    before = training.evaluate("test")
    for _ in range(1500):
        training.iterate()
    after = training.evaluate("test")
    oracle = after.bounds["oracle"][-1]
    assert before.points[-1].mean < 0.2 * oracle
    assert after.points[-1].mean > max(0.4 * oracle, 1.5 * after.points[0].mean)
