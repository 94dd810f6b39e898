"""Adaptation by a belief: the state is a sum of votes, one for each datum, whatever their order.

Rakelly et al. Efficient off-policy meta-reinforcement learning via probabilistic context variables (2019), PEARL: a
product of Gaussians.
Garnelo et al. Conditional neural processes (2018): the mean of deterministic votes.
Garnelo et al. Neural processes (2018): a random latent.
Volpp et al. Bayesian context aggregation for neural processes (2021): a product that includes the prior.

Each datum votes for a value with a weight; a belief is the sum of weights and the sum of weighted values, so that the
kinds of aggregation differ only in what the weight is:

product              the precision of a Gaussian, for each latent; the belief is the product of all data's Gaussians.
                     The prior N(0, I) counts where nothing has been seen, and is forgotten at the first datum (PEARL).
product_with_prior   the same, with the prior as one more factor, so that few data make no one certain.
mean                 one; the belief is a point.
attention            learned, for each datum; the belief is a point.

Deviations: 1. attention's weights depend on the datum and not on the query, as only then do sums hold all there is to
know; their logarithms are bounded, so that no datum can outweigh the rounding of all others.
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

_MIN_VARIANCE = 1e-7  # of one datum's Gaussian
_MAX_LOG_WEIGHT = 5.0  # of attention, either way


@dataclass(frozen=True)
class Belief(Record):
    """What has been seen of each task, summed over data."""

    weight: Tensor  # [N, Z]
    total: Tensor  # [N, Z] of the values by their weights


def factor_size(latent_size: int, aggregation: Aggregation) -> int:
    """How many numbers an encoder has to say of a datum."""
    return {"mean": latent_size, "attention": latent_size + 1}.get(aggregation, 2 * latent_size)


class ContextBelief(nn.Module):
    """A belief about a latent of each task, a product or mean of what an encoder makes of each datum.

    encoder: maps an item [..., item] to its factor [..., factor_size(latent_size, aggregation)].

    Raises:
        ValueError: when there is no latent, or no such aggregation.
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
            raise ValueError(f"aggregation is {aggregation!r}; allowed are {', '.join(get_args(Aggregation))}")
        if latent_size < 1:
            raise ValueError(f"latent_size is {latent_size}; must be at least 1")
        self.encoder = encoder
        self.latent_size, self.aggregation = latent_size, aggregation
        self.register_buffer("zeros", torch.zeros(latent_size, device=device), persistent=False)

    zeros: Tensor  # [Z], the sums over no data

    @property
    def is_random(self) -> bool:
        """Whether a belief is a distribution, and not a point."""
        return self.aggregation in ("product", "product_with_prior")

    def prior(self, num_tasks: int) -> Belief:
        """The belief before anything has been seen."""
        zeros = self.zeros.expand(num_tasks, -1)
        return Belief(zeros, zeros)

    def adapt(self, state: Belief, context: Tensor, valid: Tensor | None = None) -> Belief:
        """The belief after context [N, K, item]; of its items, those count where `valid` [N, K] (bool) is true."""
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
        """The distribution of the latent [..., Z]. A belief that is a point has none: ValueError."""
        if not self.is_random:
            raise ValueError(f"aggregation is {self.aggregation!r}; its belief is a point, without a distribution")
        if self.aggregation == "product_with_prior":
            precision = 1 + state.weight
        else:
            precision = torch.where(state.weight > 0, state.weight, 1.0)
        return DiagonalGaussian(state.total / precision, -0.5 * precision.log())

    def latent(self, state: Belief, generator: torch.Generator | None = None) -> Tensor:
        """The latent [..., Z]: the belief's mean; with a generator, a differentiable draw where it is random."""
        if not self.is_random:
            return state.total / torch.where(state.weight > 0, state.weight, 1.0)
        posterior = self.posterior(state)
        return posterior.mean if generator is None else posterior.sample(generator)

    def divergence(self, state: Belief) -> Tensor:
        """KL(posterior || prior), the information gained on each task: [...], in nats."""
        posterior = self.posterior(state)
        return posterior.kl(DiagonalGaussian(torch.zeros_like(posterior.mean), torch.zeros_like(posterior.log_std)))

    def _factors(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and values [N, K, Z]."""
        vote = self.encoder(context)
        value, rest = vote[..., : self.latent_size], vote[..., self.latent_size :]
        if self.aggregation == "mean":
            return torch.ones_like(value), value
        if self.aggregation == "attention":
            log_weight = _MAX_LOG_WEIGHT * (rest / _MAX_LOG_WEIGHT).tanh()
            return log_weight.exp().expand_as(value), value
        return nn.functional.softplus(rest).clamp(min=_MIN_VARIANCE).reciprocal(), value


class ContextAdaptation(ContextBelief):
    """A belief about a latent of each task, and a head that reads the latent with the query.

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
        """The head's outputs [N, Q, out] for queries x [N, Q, in], all of a task with one latent; see `latent`."""
        latent = self.latent(state, generator)
        return self.head(latent.unsqueeze(-2).expand(*x.shape[:-1], -1), x)
