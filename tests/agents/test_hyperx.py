"""HyperX: what its bonuses pay for, that they fall to nothing, and that acting and evaluation know nothing of them."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

from agents.hyperx import HyperX, HyperXConfig, NoBonus
from agents.rl2 import RL2, RL2Config
from agents.varibad import VariBAD, VariBADConfig
from envs.torch_families.gridworld import GridNavi
from metarl.records import Trajectory
from metarl.rl.rollouts import collect
from metarl.rl.trial_buffer import TrialSteps
from metarl.trainer import TrainConfig, Trainer

FAMILY = GridNavi(horizon=4, num_episodes=2)
BONUS = HyperXConfig(novelty_sizes=(16,), novelty_outputs=8, novelty_batch=64)
RL2_SMALL = RL2Config(hidden_size=8, head_sizes=(8,), bonus=BONUS)
VARIBAD_SMALL = VariBADConfig(
    hidden_size=8, embedding_size=8, head_sizes=(8,), reward_decoder_sizes=(8,), num_vae_steps=2, bonus=BONUS
)
every_agent = pytest.mark.parametrize("config", [RL2_SMALL, VARIBAD_SMALL], ids=["rl2", "varibad"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trainer(config: RL2Config | VariBADConfig, num_iterations: int = 5) -> Trainer:
    train = TrainConfig(num_iterations=num_iterations, num_tasks=6, eval_tasks=4)
    return Trainer(FAMILY, config, train, agent_name="agent", seed=0)


def trials(agent: Any) -> Trajectory:
    tasks = FAMILY.sample(6, "train", seeded())
    return collect(FAMILY.make_env(6, seeded()), agent, tasks, 2, generator=seeded())


def hyperx(**settings) -> HyperX:
    return HyperX(replace(BONUS, **settings), obs_size=2, belief_size=1, gamma=0.9, generator=seeded())


def test_what_was_seen_often_is_less_novel_than_what_was_not():
    made = hyperx(novelty_learning_rate=1e-3, num_novelty_steps=300, novelty_scale=1.0)
    known, other = torch.randn(20, 3, generator=seeded()), 5 + torch.randn(20, 3, generator=seeded(1))
    before = made.novelty(known).mean()
    fixed = [p.clone() for p in made.random.parameters()]
    made.learn(known[:, None], torch.ones(20, 1, dtype=torch.bool), seeded())
    assert made.novelty(known).mean() < 0.1 * before
    assert made.novelty(known).mean() < 0.1 * made.novelty(other).mean()
    assert all(torch.equal(p, q) for p, q in zip(made.random.parameters(), fixed, strict=True))


def test_novelty_may_look_at_some_numbers_only():
    where, other = torch.randn(5, 3, generator=seeded()), torch.randn(5, 3, generator=seeded(1))
    for settings, seen in [
        ({"novelty_observations": (1,)}, [1, 2]),
        ({"novelty_belief": False}, [0, 1]),
        ({"novelty_observations": (0,), "novelty_belief": False}, [0]),
    ]:
        made, unseen = hyperx(**settings), [place for place in range(3) if place not in seen]
        moved = where.clone()
        moved[:, unseen] = other[:, unseen]
        assert torch.equal(made.novelty(moved), made.novelty(where))
        moved[:, seen] = other[:, seen]
        assert not torch.equal(made.novelty(moved), made.novelty(where))


def test_novelty_cannot_look_at_a_number_that_is_not_observed():
    with pytest.raises(ValueError, match=r"novelty_observations is \(0, 2\); must be from 0 to 1"):
        hyperx(novelty_observations=(0, 2))


def test_each_bonus_is_divided_by_the_deviation_of_its_discounted_sums():
    """Errors 1, 2, then 4 after the trial's end: sums 1 and .9 + 2 have mean 1.95 and deviation .95."""
    made = hyperx(novelty_weight=0.0, error_weight=3.0)
    error = torch.tensor([[1.0], [2.0], [4.0]])
    start, valid = torch.tensor([[True], [False], [False]]), torch.tensor([[True], [True], [False]])
    bonus, metrics = made.bonus(torch.zeros(3, 1, 3), error, start, valid, 0.5)
    torch.testing.assert_close(bonus[:, 0], 3 * 0.5 * torch.tensor([1.0, 2.0, 0.0]) / 0.95)
    assert metrics["bonus_error"] == pytest.approx(3 * 0.5 * 1.5 / 0.95)
    assert metrics["bonus_novelty"] == 0


def test_a_bonus_has_a_largest_size():
    made = hyperx(novelty_weight=0.0, max_bonus=0.5)
    error = torch.tensor([[0.0], [100.0]])
    whole = torch.ones(2, 1, dtype=torch.bool)
    bonus, _ = made.bonus(torch.zeros(2, 1, 3), error, torch.tensor([[True], [False]]), whole, 1.0)
    assert bonus[:, 0].tolist() == [0.0, 0.5]


@every_agent
def test_bonuses_fall_to_nothing_at_the_last_iteration(config):
    made = trainer(config)
    paid = [made.iterate()["train/bonus_novelty"] for _ in range(5)]
    assert paid[0] > 0
    assert paid[-1] == 0
    agent = made.agent
    assert isinstance(agent, (RL2, VariBAD))
    assert not agent._bonus(trials(agent), seeded())[0].any()


@every_agent
def test_acting_and_its_logged_returns_know_nothing_of_bonuses(config):
    one, other = (trainer(replace(config, bonus=bonus)) for bonus in (BONUS, NoBonus()))
    assert one.evaluate(num_tasks=8) == other.evaluate(num_tasks=8)
    first, second = one.iterate(), other.iterate()
    assert first["meta_train/return/total"] == second["meta_train/return/total"]
    assert "train/bonus_novelty" not in second
    assert first["train/value_loss"] != second["train/value_loss"]


@every_agent
def test_novelty_is_that_of_what_a_step_reached_with_the_belief_that_holds_it(config, monkeypatch):
    """The last step's too; a change of its reward changes what it reached, and nothing before it."""
    agent = trainer(config).agent
    assert isinstance(agent, (RL2, VariBAD))
    assert agent.hyperx is not None
    seen: list[torch.Tensor] = []
    bonus = agent.hyperx.bonus
    monkeypatch.setattr(agent.hyperx, "bonus", lambda reached, *rest: seen.append(reached) or bonus(reached, *rest))
    trajectory = trials(agent)
    changed = replace(trajectory, reward=trajectory.reward.clone())
    changed.reward[-1] += 1
    for each in (trajectory, changed):
        agent._bonus(each, seeded())
    assert seen[0].shape[:2] == trajectory.reward.shape
    assert torch.equal(seen[0][..., :25], trajectory.next_obs)  # the moments are empty yet
    assert torch.equal(seen[0][:-1], seen[1][:-1])
    assert (seen[0][-1] != seen[1][-1]).any(-1).all()


def test_the_decoders_error_is_that_of_each_step_under_its_own_latent():
    agent = trainer(replace(VARIBAD_SMALL, state_decoder_sizes=(8,))).agent
    assert isinstance(agent, VariBAD)
    steps = agent._transitions(TrialSteps.of(trials(agent)))
    latent = torch.randn(*steps.reward.shape, 5, generator=seeded())
    error = agent.vae.error_of_each(steps, latent)
    one = steps.map(lambda value: value[3:4, 2:3])
    assert agent.vae.state_decoder is not None
    own = latent[3:4, 2:3]
    expected = agent.vae.reward_decoder.error(own, one) + agent.vae.state_decoder.error(own, one)
    torch.testing.assert_close(error[3, 2], expected[0, 0, 0])


@every_agent
def test_a_resumed_training_is_the_same_bit_for_bit(config):
    whole, first, second = trainer(config), trainer(config), trainer(config)
    for made in (whole, first):
        for _ in range(2):
            made.iterate()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for made in (whole, second):
        made.iterate()
    assert second.metrics == whole.metrics


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"novelty_weight": -1.0}, r"novelty_weight is -1\.0; must"), ({"novelty_batch": 0}, "novelty_batch is 0; must")],
)
def test_a_wrong_setting_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        HyperXConfig(**settings)


@pytest.mark.parametrize("config", [RL2Config, VariBADConfig])
def test_a_bonus_of_another_kind_is_refused(config):
    with pytest.raises(ValueError, match="bonus is 'hyperx'; must be a NoBonus or HyperXConfig"):
        config(bonus="hyperx")
