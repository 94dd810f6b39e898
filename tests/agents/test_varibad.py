"""VariBAD: what its belief reads, which loss reaches what, that its loss is the ELBO, and that it learns to learn."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from agents import ppo
from agents.belief_vae import OneHotDecoder, Transitions
from agents.hypernetwork_policy import HypernetworkPolicyConfig
from agents.varibad import VariBAD, VariBADConfig
from envs.torch_families.bandits import BernoulliBandit
from envs.torch_families.gridworld import GridNavi
from envs.torch_families.navigation import PointNavigation
from metarl.errors import UserError
from metarl.protocols import TaskFamily
from metarl.records import Step
from metarl.rl.rollouts import collect
from metarl.rl.trial_buffer import BufferedTrials, TrialBuffer, TrialSteps
from metarl.trainer import TrainConfig, Trainer

GRID = GridNavi(horizon=4)
POINT = PointNavigation(horizon=4)
SMALL = VariBADConfig(
    latent_size=2,
    hidden_size=8,
    encoder_sizes=(8,),
    reward_decoder_sizes=(8,),
    embedding_size=8,
    head_sizes=(8,),
    num_vae_steps=2,
    vae_batch=4,
)
CELLS = {"reward_decoder": "one_hot"}
SETTINGS = {
    "cells": (GRID, CELLS),
    "scalar": (GRID, {"state_decoder_sizes": (8,)}),
    "continuous": (POINT, {"state_decoder_sizes": (8,), "num_terms": 3, "num_decoded": 5}),
    "hypernetwork": (GRID, {"policy": HypernetworkPolicyConfig(embedding_size=4, hidden_sizes=(8,))}),
}
every_kind = pytest.mark.parametrize(("family", "settings"), SETTINGS.values(), ids=SETTINGS)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(family: TaskFamily, **settings) -> VariBAD:
    config = replace(SMALL, **settings)
    return config.make(family.observation_space, family.action_space, num_iterations=10, generator=seeded())


def experience(family: TaskFamily, agent: VariBAD, num_rows: int = 6, num_episodes: int = 3) -> BufferedTrials:
    generator = seeded(1)
    tasks = family.sample(num_rows, "train", generator)
    trajectory = collect(family.make_env(num_rows, generator), agent, tasks, num_episodes, generator=generator)
    discrete = not trajectory.decision.action.is_floating_point()
    sizes = trajectory.obs.shape[-1], None if discrete else trajectory.decision.action.shape[-1]
    buffer = TrialBuffer(8, len(trajectory.obs), *sizes, max_gigabytes=0.1)
    buffer.add(TrialSteps.of(trajectory))
    return BufferedTrials([trajectory], buffer)


@every_kind
def test_learning_sees_the_policy_that_acted(family, settings, monkeypatch):
    """Also after an update, when the normalisers are not the identity."""
    agent = make(family, **settings, num_epochs=1, num_minibatches=1)
    seen = []
    loss = ppo.losses_of
    monkeypatch.setattr(ppo, "losses_of", lambda *given: seen.append(loss(*given)) or seen[-1])
    for _ in range(2):
        agent.update(experience(family, agent), seeded())
    assert all(losses.kl < 1e-9 and losses.clipped == 0 for losses in seen)
    assert len(seen) == 2


@every_kind
def test_the_beliefs_of_learning_are_those_of_acting(family, settings):
    agent = make(family, **settings)
    agent.update(experience(family, agent), seeded())
    (trajectory,), _ = experience(family, agent)
    beliefs = agent.vae.beliefs(agent._transitions(TrialSteps.of(trajectory)))
    torch.testing.assert_close(beliefs.mean[:-1], trajectory.decision.belief.mean)
    torch.testing.assert_close(beliefs.log_std[:-1], trajectory.decision.belief.log_std)


@every_kind
def test_each_loss_reaches_its_own_parameters_and_all_of_them(family, settings):
    agent = make(family, **settings)
    trial = experience(family, agent)
    before = [p.detach().clone() for p in agent.vae.parameters()]
    agent._update_policy(trial.trial[0], seeded())
    assert all(torch.equal(p, q) for p, q in zip(agent.vae.parameters(), before, strict=True))
    assert not any(p.grad is None for p in agent.policy.parameters())
    policy = [p.detach().clone() for p in agent.policy.parameters()]
    agent._vae_step(trial.buffer.sample(4, seeded()), 1e-3, seeded())
    assert all(torch.equal(p, q) for p, q in zip(agent.policy.parameters(), policy, strict=True))
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in agent.vae.parameters())


def test_the_belief_at_a_step_knows_nothing_of_later_ones():
    agent = make(GRID, **CELLS)
    (trajectory,), _ = experience(GRID, agent)
    steps = TrialSteps.of(trajectory)
    changed = replace(steps, reward=steps.reward.clone())
    changed.reward[5] += 1
    one, other = (agent.vae.beliefs(agent._transitions(each)).mean for each in (steps, changed))
    assert torch.equal(one[:6], other[:6])
    assert not torch.equal(one[6], other[6])


def test_tasks_do_not_leak_into_each_other():
    agent = make(GRID, **CELLS)
    (trajectory,), _ = experience(GRID, agent)
    steps = TrialSteps.of(trajectory)
    changed = replace(steps, reward=steps.reward.clone())
    changed.reward[:, 2] += 1
    one, other = (agent.vae.beliefs(agent._transitions(each)).mean for each in (steps, changed))
    others = torch.tensor([0, 1, 3, 4, 5])
    assert torch.equal(one[:, others], other[:, others])
    assert not torch.equal(one[:, 2], other[:, 2])


def test_an_episodes_end_resets_nothing_and_a_new_task_everything():
    agent = make(GRID, **CELLS)
    obs = torch.eye(25)[:1]
    no = torch.zeros(1, dtype=torch.bool)
    action = torch.zeros(1, dtype=torch.long)
    start = agent.prior(1)
    assert agent.observe(start, None, Step(obs, obs, torch.zeros(1), no, no)) is start
    goes_on, ends = (agent.observe(start, action, Step(obs, obs, torch.ones(1), no, end)) for end in (no, ~no))
    assert torch.equal(goes_on.belief.mean, ends.belief.mean)
    assert not torch.equal(ends.belief.mean, start.belief.mean)
    again = agent.observe(ends, action, Step(obs, obs, torch.zeros(1), no, no))
    assert not torch.equal(
        again.belief.mean, agent.observe(start, action, Step(obs, obs, torch.zeros(1), no, no)).belief.mean
    )
    assert torch.equal(agent.prior(1).belief.mean, start.belief.mean)


def test_the_belief_reads_where_an_action_led_and_not_where_the_next_episode_starts():
    agent = make(GRID, **CELLS)
    no = torch.zeros(1, dtype=torch.bool)
    cells = torch.eye(25)
    here, there = (
        agent.observe(
            agent.prior(1), torch.zeros(1, dtype=torch.long), Step(cells[:1], cells[k : k + 1], torch.ones(1), no, ~no)
        )
        for k in (3, 4)
    )
    assert not torch.equal(here.belief.mean, there.belief.mean)


@every_kind
def test_without_the_reward_as_input_the_belief_is_the_same_whatever_the_rewards(family, settings):
    """The decoder still learns to predict them."""
    agent = make(family, reward_input=False, **settings)
    (trajectory,), buffer = experience(family, agent)
    steps = TrialSteps.of(trajectory)
    other = replace(steps, reward=steps.reward + 1)
    beliefs = [agent.vae.beliefs(agent._transitions(each)).mean for each in (steps, other)]
    assert torch.equal(*beliefs)
    torch.testing.assert_close(beliefs[0][:-1], trajectory.decision.belief.mean)
    assert agent._vae_step(buffer.sample(4, seeded()), 1e-3, seeded())["vae_reward_error"] > 0


class _Fixed(torch.nn.Module):
    """A decoder whose error is the transition's reward, whatever the latent."""

    def predict(self, latent: torch.Tensor, transitions: Transitions) -> torch.Tensor:
        return transitions.reward.expand(len(latent), -1, -1)

    error = predict


def by_hand() -> Transitions:
    """Two trials, of three steps and of one; the rewards after a trial's end are odd."""
    valid = torch.tensor([[True, True], [True, False], [True, False]])
    reward = torch.tensor([[1.0, 5.0], [2.0, 700.0], [4.0, 900.0]])
    obs = torch.randn(3, 2, 25, generator=seeded())
    return Transitions(obs, torch.zeros(3, 2, 5), reward, obs, obs, valid)


def test_errors_are_summed_over_a_trial_and_averaged_over_prefixes_and_trials(monkeypatch):
    vae, data = make(GRID, **CELLS).vae, by_hand()
    vae.reward_decoder = _Fixed()
    # Four prefixes of the first trial, whose errors add up to 7, and two of the second, with 5.
    assert float(vae.elbo(data, None, None, seeded()).reward_error) == pytest.approx((4 * 7 + 2 * 5) / 6)
    assert float(vae.elbo(data, None, None, seeded()).state_error) == 0
    # Drawn prefixes weigh each trial the same: (7 + 5) / 2, and drawn transitions of equal error are all of them.
    assert float(vae.elbo(data, 4, None, seeded()).reward_error) == pytest.approx(6.0)
    same = replace(data, reward=torch.ones(3, 2))
    assert float(vae.elbo(same, 4, 2, seeded()).reward_error) == pytest.approx((3 + 1) / 2)


def test_drawn_transitions_estimate_the_whole_sum():
    vae, data = make(GRID, **CELLS).vae, by_hand()
    vae.reward_decoder = _Fixed()
    mean = torch.stack([vae.elbo(data, 1, 2, seeded(seed)).reward_error for seed in range(400)]).mean()
    assert float(mean) == pytest.approx(6.0, abs=0.25)


def test_the_divergence_is_each_beliefs_from_the_one_before():
    vae, data = make(GRID, **CELLS).vae, by_hand()
    beliefs = vae.beliefs(data)
    each = [Normal(mean, log_std.exp()) for mean, log_std in zip(beliefs.mean, beliefs.log_std, strict=True)]
    prior = Normal(torch.zeros(2, 2), torch.ones(2, 2))
    by_prefix = torch.stack([kl_divergence(q, p).sum(-1) for p, q in zip([prior, *each], each, strict=False)])  # [4, 2]
    expected = (by_prefix[:, 0].sum() + by_prefix[:2, 1].sum()) / 6
    torch.testing.assert_close(vae.elbo(data, None, None, seeded()).divergence, expected)


def test_the_cells_probability_is_that_of_a_positive_reward_there():
    decoder = make(GRID, **CELLS).vae.reward_decoder
    assert isinstance(decoder, OneHotDecoder)
    latent = torch.randn(2, 3, 2, generator=seeded())
    cells = torch.tensor([[4, 5, 6], [7, 8, 9]])
    reward = torch.tensor([[1.0, -0.1, -0.1], [-0.1, -0.1, 1.0]])
    obs = torch.nn.functional.one_hot(cells, 25).float()
    data = Transitions(obs, torch.zeros(2, 3, 5), reward, obs, obs, torch.ones(2, 3, dtype=torch.bool))
    for term in range(2):
        for step in range(2):
            for trial in range(3):
                chance = decoder.net(latent[term, trial]).sigmoid()[cells[step, trial]]
                assert decoder.predict(latent, data)[term, step, trial] == chance
                log_prob = (chance if reward[step, trial] > 0 else 1 - chance).log()
                torch.testing.assert_close(decoder.error(latent, data)[term, step, trial], -log_prob)


def test_what_follows_the_end_of_a_trial_changes_nothing():
    states = []
    for odd in (0.0, 7.0):
        agent = make(GRID, **CELLS)
        (trajectory,), buffer = experience(GRID, agent)
        valid = torch.arange(12)[:, None] < torch.tensor([12, 9, 7, 4, 3, 1])
        reward = torch.where(valid, trajectory.reward, odd)
        trajectory = replace(trajectory, reward=reward, valid=valid)
        buffer.add(TrialSteps.of(trajectory))
        agent.update(BufferedTrials([trajectory], buffer), seeded())
        states.append(torch.cat([p.detach().flatten() for p in [*agent.policy.parameters(), *agent.vae.parameters()]]))
    assert torch.equal(*states)


def test_observations_that_are_not_one_hot_are_refused():
    agent = make(POINT, **CELLS)
    with pytest.raises(UserError, match="reward_decoder is one_hot; must be scalar"):
        agent.update(experience(POINT, agent), seeded())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latent_size": 0}, "latent_size is 0; must"),
        ({"kl_weight": -1.0}, r"kl_weight is -1\.0; must"),
        ({"num_terms": 0}, "num_terms is 0; must"),
        ({"reward_decoder": "cells"}, "reward_decoder is 'cells'; must be one of scalar, one_hot"),
        ({"state_decoder_sizes": (0,)}, r"state_decoder_sizes is \(0,\); must"),
    ],
)
def test_a_wrong_setting_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        VariBADConfig(**settings)


def trainer(seed: int = 0, **settings) -> Trainer:
    train = TrainConfig(num_iterations=10, num_tasks=8, eval_tasks=4)
    return Trainer(GridNavi(horizon=3), replace(SMALL, **settings), train, agent_name="varibad", seed=seed)


def test_a_resumed_training_is_the_same_bit_for_bit():
    """Its buffer too, which has wrapped around."""
    whole = trainer(buffer_trials=12)
    for _ in range(4):
        whole.iterate()
    first, second = trainer(buffer_trials=12), trainer(buffer_trials=12)
    for _ in range(2):
        first.iterate()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for _ in range(2):
        second.iterate()
    assert second.metrics == whole.metrics
    for name in ("policy", "vae"):
        for ours, theirs in zip(
            getattr(second.agent, name).parameters(), getattr(whole.agent, name).parameters(), strict=True
        ):
            assert torch.equal(ours, theirs)


def test_what_an_evaluation_needs_holds_no_trials():
    made = trainer()
    made.iterate()
    state = made.state_dict(to_train=False)
    assert "buffer" not in state["source"]
    other = trainer()
    other.load_state_dict(state, to_train=False)
    assert other.evaluate(num_tasks=4).total == made.evaluate(num_tasks=4).total


@pytest.mark.learn
def test_meta_training_learns_to_learn_a_tiny_bandit():
    """Two arms, ten pulls: knowing nothing earns 5.0; the best arm alone 6.67; playing well about 6.1."""
    config = VariBADConfig(
        latent_size=3,
        hidden_size=24,
        reward_decoder_sizes=(16,),
        head_sizes=(32,),
        learning_rate=5e-3,
        final_learning_rate=1e-3,
        num_minibatches=2,
        kl_weight=0.1,
        num_vae_steps=6,
        vae_batch=128,
        vae_learning_rate=5e-3,
    )
    train = TrainConfig(num_iterations=40, num_tasks=256)
    made = Trainer(BernoulliBandit(num_arms=2, num_pulls=10), config, train, agent_name="varibad", seed=0)
    before = made.evaluate(num_tasks=2000)
    for _ in range(40):
        made.iterate()
    after = made.evaluate(num_tasks=2000)
    assert before.total.mean < 5.3
    assert after.total.mean > 5.8
    assert after.points[-1].mean > after.points[0].mean + 0.1  # within the trial, not by a fixed habit
