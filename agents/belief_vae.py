"""A variational belief about the task: a recurrent encoder of the trial so far, and decoders of the whole trial.

Zintgraf et al. VariBAD: a very good method for Bayes-adaptive deep RL via meta-learning (2020).

For every prefix of a trial, t = 0 to L transitions, a sample z of the belief q_t decodes all L transitions, past and
future. The loss of a trial is the mean over its L + 1 prefixes of

    sum over transitions of -log p(reward, next observation | z, transition)  +  kl_weight * KL(q_t || q_{t-1})

with the standard normal distribution in the place of q_{-1}. Prefixes and transitions may be subsampled; the loss is
then an unbiased estimate of the same sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from metarl.adaptation.recurrent import RecurrentConfig
from metarl.adaptation.sequence import SequenceBelief, SequenceState
from metarl.nets.distributions import DiagonalGaussian
from metarl.nets.mlp import mlp
from metarl.records import Record
from metarl.rl.losses import mean_where


@dataclass(frozen=True)
class Transitions(Record):
    """Transitions as the networks read them, of whole trials."""

    obs: Tensor  # [T, M, O]
    action: Tensor  # [T, M, A], encoded
    reward: Tensor  # [T, M]
    next_obs: Tensor  # [T, M, O], before any reset
    raw_next_obs: Tensor  # [T, M, O], not normalised
    valid: Tensor  # [T, M] bool: false after the trial's end


RewardKind = Literal["scalar", "one_hot"]


class RewardDecoder(Protocol):
    """A module that predicts rewards from a latent."""

    def predict(self, latent: Tensor, transitions: Transitions) -> Tensor:
        """The reward, or the probability that it is positive, [J, K, M], of transitions [K, M] under [J, M, Z]."""
        ...

    def error(self, latent: Tensor, transitions: Transitions) -> Tensor:
        """-log p(reward) up to a constant, [J, K, M], of transitions [K, M] under latents [J, M, Z]."""
        ...


class ScalarDecoder(nn.Module):
    """A prediction of the reward from the latent and the transition: squared error."""

    def __init__(
        self, sizes: tuple[int, ...], latent_size: int, obs_size: int, num_actions: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        widths = (latent_size + 2 * obs_size + num_actions, *sizes, 1)
        self.net = mlp(widths, activation="relu", output_gain=1.0, generator=generator)

    def predict(self, latent: Tensor, transitions: Transitions) -> Tensor:
        item = torch.cat([transitions.obs, transitions.action, transitions.next_obs], -1)
        return self.net(_pairs(latent, item)).squeeze(-1)

    def error(self, latent: Tensor, transitions: Transitions) -> Tensor:
        return (self.predict(latent, transitions) - transitions.reward).square()


class OneHotDecoder(nn.Module):
    """A probability, for each entry of a one-hot next observation, of a positive reward there: cross-entropy."""

    def __init__(
        self, sizes: tuple[int, ...], latent_size: int, obs_size: int, num_actions: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.net = mlp((latent_size, *sizes, obs_size), activation="relu", output_gain=1.0, generator=generator)

    def predict(self, latent: Tensor, transitions: Transitions) -> Tensor:
        return self._logit(latent, transitions).sigmoid()

    def error(self, latent: Tensor, transitions: Transitions) -> Tensor:
        logit = self._logit(latent, transitions)
        positive = (transitions.reward > 0).to(logit.dtype).expand_as(logit)
        return binary_cross_entropy_with_logits(logit, positive, reduction="none")

    def _logit(self, latent: Tensor, transitions: Transitions) -> Tensor:
        return torch.einsum("jmo,kmo->jkm", self.net(latent), transitions.raw_next_obs)


REWARD_DECODERS: dict[RewardKind, type[ScalarDecoder | OneHotDecoder]] = {
    "scalar": ScalarDecoder,
    "one_hot": OneHotDecoder,
}


class StateDecoder(nn.Module):
    """A prediction of the next observation from the latent, the observation and the action: mean squared error."""

    def __init__(
        self, sizes: tuple[int, ...], latent_size: int, obs_size: int, num_actions: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        widths = (latent_size + obs_size + num_actions, *sizes, obs_size)
        self.net = mlp(widths, activation="relu", output_gain=1.0, generator=generator)

    def error(self, latent: Tensor, transitions: Transitions) -> Tensor:
        """-log p(next observation) up to a constant, [J, K, M], as `RewardDecoder.error`."""
        predicted = self.net(_pairs(latent, torch.cat([transitions.obs, transitions.action], -1)))
        return (predicted - transitions.next_obs).square().mean(-1)


def _pairs(latent: Tensor, item: Tensor) -> Tensor:
    """Latents [J, M, Z] with items [K, M, I], each with each: [J, K, M, Z + I]."""
    terms, steps = len(latent), len(item)
    return torch.cat([latent[:, None].expand(-1, steps, -1, -1), item[None].expand(terms, -1, -1, -1)], -1)


@dataclass(frozen=True)
class ELBO(Record):
    """The parts of the loss, each [], means over trials and prefixes."""

    reward_error: Tensor  # sum over a trial's transitions
    state_error: Tensor  # sum over a trial's transitions; zero without a state decoder
    divergence: Tensor  # KL divergence of a belief from the one before it


class BeliefVAE(nn.Module):
    """The encoder with its decoders."""

    def __init__(
        self,
        *,
        obs_size: int,
        num_actions: int,
        latent_size: int,
        memory: RecurrentConfig,
        hidden_size: int,
        encoder_sizes: tuple[int, ...],
        reward_input: bool,
        reward_decoder: RewardKind,
        reward_decoder_sizes: tuple[int, ...],
        state_decoder_sizes: tuple[int, ...] | None,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.reward_input = reward_input  # whether the encoder reads the rewards
        sizes = (num_actions + reward_input + obs_size, *encoder_sizes)
        embedding = mlp(sizes, activation="relu", generator=generator)
        made: Any = memory.make(sizes[-1], hidden_size, generator=generator)
        self.memory: SequenceBelief[Any] = SequenceBelief(embedding, made)
        self.heads = mlp((hidden_size, 2 * latent_size), activation="relu", output_gain=1.0, generator=generator)
        shape = (latent_size, obs_size, num_actions, generator)
        self.reward_decoder: RewardDecoder = REWARD_DECODERS[reward_decoder](reward_decoder_sizes, *shape)
        self.state_decoder = None if state_decoder_sizes is None else StateDecoder(state_decoder_sizes, *shape)

    def items(self, action: Tensor, reward: Tensor, next_obs: Tensor) -> Tensor:
        """The encoder's inputs [..., item] from encoded actions [..., A], rewards [...] and observations [..., O]."""
        return torch.cat([action, *([reward.unsqueeze(-1)] if self.reward_input else []), next_obs], -1)

    def belief(self, memory: SequenceState) -> DiagonalGaussian:
        """The belief that a memory holds: [B, Z]."""
        return self._belief(memory.hidden)

    def beliefs(self, transitions: Transitions) -> DiagonalGaussian:
        """The beliefs after each prefix of whole trials [T, M], from none to all transitions: [T + 1, M, Z]."""
        prior = self.memory.prior(transitions.valid.shape[1])
        items = self.items(transitions.action, transitions.reward, transitions.next_obs)
        hidden = self.memory.unroll(prior, items)
        return self._belief(torch.cat([prior.hidden[None], hidden]))

    def _belief(self, hidden: Tensor) -> DiagonalGaussian:
        mean, log_variance = self.heads(hidden).chunk(2, -1)
        return DiagonalGaussian(mean, 0.5 * log_variance)

    def elbo(
        self, transitions: Transitions, num_terms: int | None, num_decoded: int | None, generator: torch.Generator
    ) -> ELBO:
        """The loss's parts on whole trials [T, M], each of one valid step or more.

        num_terms: the number of prefixes drawn per trial, with replacement; None: all. num_decoded: the number of
        transitions drawn per trial, decoded from each of these; None: all.
        """
        beliefs, length = self.beliefs(transitions), transitions.valid.sum(0)  # [T + 1, M, Z], [M]
        divergence = beliefs.kl(_one_later(beliefs))  # [T + 1, M]
        terms, is_term = _drawn(num_terms, len(divergence), length + 1, generator)  # [J, M] each
        steps, is_step = _drawn(num_decoded, len(divergence) - 1, length, generator)  # [K, M] each
        latent = beliefs.map(lambda value: _taken(value, terms)).sample(generator)
        decoded = transitions.map(lambda value: _taken(value, steps))

        def total(error: Tensor) -> Tensor:
            """Errors [J, K, M] summed over a trial's transitions, then averaged over prefixes and trials."""
            mean = torch.where(is_step, error, 0.0).sum(1) / is_step.sum(0)
            return mean_where(mean * length, is_term)

        state_error = divergence.new_zeros(())
        if self.state_decoder is not None:
            state_error = total(self.state_decoder.error(latent, decoded))
        reward_error = total(self.reward_decoder.error(latent, decoded))
        return ELBO(reward_error, state_error, mean_where(_taken(divergence, terms), is_term))

    def error_of_each(self, transitions: Transitions, latent: Tensor) -> Tensor:
        """The decoders' errors on transitions [T, M], each under its own latent [T, M, Z]: [T, M]."""
        alone = transitions.map(lambda value: value.flatten(0, 1)[None])  # as so many trials of one step
        own = latent.flatten(0, 1)[None]
        error = self.reward_decoder.error(own, alone)
        if self.state_decoder is not None:
            error = error + self.state_decoder.error(own, alone)
        return error.view_as(transitions.reward)


def _one_later(beliefs: DiagonalGaussian) -> DiagonalGaussian:
    """The belief before each of [T + 1, ...]; the standard normal distribution before the first."""
    return beliefs.map(lambda value: torch.cat([torch.zeros_like(value[:1]), value[:-1]]))


def _drawn(count: int | None, size: int, allowed: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices below `allowed` [M] and whether each counts, [J, M] each: `count` drawn per trial, or all `size`."""
    trials = len(allowed)
    if count is None:
        index = torch.arange(size, device=allowed.device)[:, None].expand(-1, trials)
        return index, index < allowed
    uniform = torch.rand((count, trials), generator=generator, device=generator.device)
    index = torch.minimum((uniform * allowed).long(), allowed - 1)
    return index, torch.ones_like(index, dtype=torch.bool)


def _taken(values: Tensor, index: Tensor) -> Tensor:
    """The entries of values [T, M, ...] at index [J, M]: [J, M, ...]."""
    return values[index, torch.arange(index.shape[1], device=index.device)]
