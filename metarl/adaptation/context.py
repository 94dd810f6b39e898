"""Adaptation by aggregating a context: the state is a sum of factors, one per datum, in any order.

Rakelly et al. Efficient off-policy meta-reinforcement learning via probabilistic context variables (2019), PEARL: a
product of Gaussians.
Garnelo et al. Conditional neural processes (2018): the mean of deterministic embeddings.
Garnelo et al. Neural processes (2018): a latent variable.
Volpp et al. Bayesian context aggregation for neural processes (2021): a product that includes the prior.

Each datum contributes a value with a weight; a belief is the sum of the weights and the sum of the weighted values. The
kinds of aggregation differ only in the weight:

product              the precision of a Gaussian, per latent; the belief is the product of all data's Gaussians.
                     The prior N(0, I) holds only while no data have been seen (PEARL).
product_with_prior   as for "product", with the prior as one more factor, so a few data never make the belief certain.
mean                 one; the belief is a point estimate.
attention            learned per datum; the belief is a point estimate.

Deviations: 1. attention weights depend on the datum and not on the query, because only then are the sums a sufficient
state; their logarithms are bounded, so no datum can push all others below rounding error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from metarl.nets.distributions import DiagonalGaussian
from metarl.records import Record

Aggregation = Literal["product", "product_with_prior", "mean", "attention"]

_MIN_VARIANCE = 1e-7  # smallest variance of one datum's Gaussian
_MAX_LOG_WEIGHT = 5.0  # bound on the absolute log weight of attention


@dataclass(frozen=True)
class Belief(Record):
    """Sufficient statistics of each task's data, summed over data."""

    weight: Tensor  # [N, Z]
    total: Tensor  # [N, Z], sum of the weighted values


def factor_size(latent_size: int, aggregation: Aggregation) -> int:
    """The size of the encoder's output per datum."""
    return {"mean": latent_size, "attention": latent_size + 1}.get(aggregation, 2 * latent_size)


class ContextBelief(nn.Module):
    """A belief about each task's latent: a product or mean of an encoder's factors, one per datum.

    encoder: maps an item [..., item] to its factor [..., factor_size(latent_size, aggregation)].

    Raises:
        ValueError: when latent_size is below one, or the aggregation is unknown.
    """

    def __init__(
        self,
        encoder: Callable[[Tensor], Tensor],
        *,
        latent_size: int,
        aggregation: Aggregation,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if aggregation not in get_args(Aggregation):
            raise ValueError(f"aggregation is {aggregation!r}; must be one of {', '.join(get_args(Aggregation))}")
        if latent_size < 1:
            raise ValueError(f"latent_size is {latent_size}; must be at least 1")
        self.encoder = encoder
        self.latent_size, self.aggregation = latent_size, aggregation
        self.register_buffer("zeros", torch.zeros(latent_size, device=device), persistent=False)

    zeros: Tensor  # [Z], the sums over an empty context

    @property
    def is_random(self) -> bool:
        """Whether a belief is a distribution rather than a point estimate."""
        return self.aggregation in ("product", "product_with_prior")

    def prior(self, num_tasks: int) -> Belief:
        """The belief before any data."""
        zeros = self.zeros.expand(num_tasks, -1)
        return Belief(zeros, zeros)

    def adapt(self, state: Belief, context: Tensor, valid: Tensor | None = None) -> Belief:
        """The belief after context [N, K, item]; only items where `valid` [N, K] (bool) is true count."""
        weight, value = self._factors(context)
        if valid is not None:
            weight = torch.where(valid[..., None], weight, 0.0)
            value = torch.where(valid[..., None], value, 0.0)
        return Belief(state.weight + weight.sum(1), state.total + (weight * value).sum(1))

    def path(self, state: Belief, context: Tensor) -> Belief:
        """The beliefs after 0, 1, ... K items of context [N, K, item], stacked: [K + 1, N, ...]."""
        weight, value = self._factors(context)
        sums = Belief(weight, weight * value).map(lambda votes: votes.transpose(0, 1).cumsum(0))
        before = state.map(lambda value: value.unsqueeze(0))
        return Belief(
            torch.cat([before.weight, before.weight + sums.weight]),
            torch.cat([before.total, before.total + sums.total]),
        )

    def posterior(self, state: Belief) -> DiagonalGaussian:
        """The distribution of the latent [..., Z].

        Raises:
            ValueError: when the belief is a point estimate.
        """
        if not self.is_random:
            raise ValueError(f"aggregation is {self.aggregation!r}; its belief is a point, without a distribution")
        if self.aggregation == "product_with_prior":
            precision = 1 + state.weight
        else:
            precision = torch.where(state.weight > 0, state.weight, 1.0)
        return DiagonalGaussian(state.total / precision, -0.5 * precision.log())

    def latent(self, state: Belief, generator: torch.Generator | None = None) -> Tensor:
        """The latent [..., Z]: the belief's mean or, given a generator and a random belief, a differentiable sample."""
        if not self.is_random:
            return state.total / torch.where(state.weight > 0, state.weight, 1.0)
        posterior = self.posterior(state)
        return posterior.mean if generator is None else posterior.sample(generator)

    def divergence(self, state: Belief) -> Tensor:
        """KL(posterior || prior) [...], the information gained about each task, in nats."""
        posterior = self.posterior(state)
        return posterior.kl(DiagonalGaussian(torch.zeros_like(posterior.mean), torch.zeros_like(posterior.log_std)))

    def _factors(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """The weights and values of the data: [N, K, Z] each."""
        vote = self.encoder(context)
        value, rest = vote[..., : self.latent_size], vote[..., self.latent_size :]
        if self.aggregation == "mean":
            return torch.ones_like(value), value
        if self.aggregation == "attention":
            log_weight = _MAX_LOG_WEIGHT * (rest / _MAX_LOG_WEIGHT).tanh()
            return log_weight.exp().expand_as(value), value
        return nn.functional.softplus(rest).clamp(min=_MIN_VARIANCE).reciprocal(), value


class ContextAdaptation(ContextBelief):
    """A belief about each task's latent, and a head that reads the latent and the query.

    encoder, latent_size, aggregation, device: as in `ContextBelief`.
    head: called as head(latent [..., Z], x [..., in]), returns the prediction.
    """

    def __init__(
        self,
        encoder: Callable[[Tensor], Tensor],
        head: Callable[[Tensor, Tensor], Tensor],
        *,
        latent_size: int,
        aggregation: Aggregation,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(encoder, latent_size=latent_size, aggregation=aggregation, device=device)
        self.head = head

    def predict(self, state: Belief, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The head's outputs [N, Q, out] for queries x [N, Q, in]; a task's queries share one latent (see `latent`)."""
        latent = self.latent(state, generator)
        return self.head(latent.unsqueeze(-2).expand(*x.shape[:-1], -1), x)
