"""PEARL away from training: its step with the state passed in and out, and the encoder and the policy apart.

The encoder adds a transition to the sums that are the belief; the policy acts on sums. In the step, the policy's latent
is drawn when an episode starts and kept; apart, it is a function of the sums and of the noise that the policy is given,
which therefore stay the same for an episode, while the encoder may go on at any rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from metarl.adaptation.context import Belief
from metarl.deployment import DeployedAgent, DeployedPart, StepInputs, where
from metarl.records import Record
from metarl.rl.replay import Transition

if TYPE_CHECKING:
    from agents.pearl import PEARL

_NUM_EXAMPLES = 3  # transitions behind the belief that is the parts' example


@dataclass(frozen=True)
class DeployedState(Record):
    """The state of a deployed agent, per row; unlike in training, each row has its own task."""

    belief: Belief  # [B, Z], from all transitions, those of the episode under way among them
    latent: Tensor  # [B, Z], of the current episode
    obs: Tensor  # [B, O], the observation last acted on
    num_episodes: Tensor  # [B] int64, episodes that have ended


def deployed(agent: PEARL) -> DeployedAgent:
    """The agent's step."""

    def step(state: DeployedState, inputs: StepInputs) -> tuple[Tensor, DeployedState]:
        belief = _absorbed(agent, state.belief, state.obs, inputs, valid=~inputs.new_task[:, None])
        num_episodes = state.num_episodes + inputs.episode_end
        source = where(num_episodes < agent.config.num_exploration_episodes, agent.belief.prior(1), belief)
        latent = where(inputs.episode_end | inputs.new_task, _drawn(agent, source, inputs.noise), state.latent)
        return _action(agent, inputs.obs, latent), DeployedState(belief, latent, inputs.obs, num_episodes)

    belief, device = agent.belief.prior(1), agent.obs_moments.mean.device
    obs = torch.zeros(1, len(agent.obs_moments.mean), device=device)
    initial = DeployedState(belief, agent.belief.latent(belief), obs, torch.zeros(1, dtype=torch.int64, device=device))
    size = _noise_size(agent)
    reads = ("action", "reward", "episode_end", *(("next_obs",) if agent.config.next_obs_in_context else ()))
    return DeployedAgent(step, initial, (*reads, *(("noise",) if size else ())), noise_size=size)


def deployed_parts(agent: PEARL) -> tuple[DeployedPart, ...]:
    """The encoder and the policy; their state is the sums alone."""
    config, device = agent.config, agent.obs_moments.mean.device

    def encode(state: dict[str, Belief], given: dict[str, Tensor]) -> tuple[None, dict[str, Belief]]:
        obs, no = given["obs"], torch.zeros_like(given["reward"], dtype=torch.bool)
        following = given.get("next_obs", obs)
        inputs = StepInputs(following, given["action"], given["reward"], no, no, following, obs)
        return None, {"belief": _absorbed(agent, state["belief"], obs, inputs)}

    def act(state: dict[str, Belief], given: dict[str, Tensor]) -> tuple[Tensor, None]:
        latent = _drawn(agent, state["belief"], given.get("noise"))
        return _action(agent, given["obs"], latent), None

    generator = torch.Generator(device).manual_seed(0)
    items = torch.randn(1, _NUM_EXAMPLES, agent.item_size, generator=generator, device=device)
    with torch.no_grad():
        state = {"belief": agent.belief.adapt(agent.belief.prior(1), items)}
    transition = {
        "obs": "the observation that was acted on",
        "action": "the action, as it was carried out",
        "reward": "the reward of the action",
    }
    if config.next_obs_in_context:
        transition["next_obs"] = "what the action led to"
    seen = {"obs": "the observation to act on"}
    size = _noise_size(agent)
    if size:
        seen["noise"] = "standard normal numbers for a posterior sample, the same for an episode; zeros: the mean"
    return (DeployedPart("encoder", encode, state, transition), DeployedPart("policy", act, state, seen, size))


def _absorbed(agent: PEARL, belief: Belief, obs: Tensor, inputs: StepInputs, valid: Tensor | None = None) -> Belief:
    """The belief after the transition from `obs` [B, O]."""
    seen = inputs.step
    items = agent.items(
        Transition(
            obs=obs,
            action=inputs.action,
            reward=seen.reward,
            shaped_reward=seen.reward,
            next_obs=seen.next_obs,
            terminated=seen.terminated,
        )
    )
    return agent.belief.adapt(belief, items[:, None], valid)


def _drawn(agent: PEARL, source: Belief, noise: Tensor | None) -> Tensor:
    """A belief's latent: its mean, moved by noise [B, Z] in units of its standard deviation."""
    mean = agent.belief.latent(source)
    if noise is None or not agent.belief.is_random:
        return mean
    return mean + noise * agent.belief.posterior(source).log_std.exp()


def _action(agent: PEARL, obs: Tensor, latent: Tensor) -> Tensor:
    """The policy's mode."""
    distribution = agent.sac.actor(torch.cat([agent.normalised(obs), latent], -1))
    return agent.sac.actor.to_env(distribution.mode)


def _noise_size(agent: PEARL) -> int:
    return agent.config.latent_size if agent.belief.is_random else 0
