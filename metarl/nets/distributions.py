"""Action distributions as records: sampled from a torch.Generator and safe under torch.vmap.

torch.distributions samples from the global generator only, and building its objects at every step costs more than the
small networks used here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.records import Record

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class Categorical(Record):
    """A choice among C actions; samples are int64."""

    logits: Tensor  # [..., C], up to an additive constant

    @property
    def mode(self) -> Tensor:
        return self.logits.argmax(-1)  # [...]

    def sample(self, generator: torch.Generator) -> Tensor:
        """One action per row [...], by the Gumbel-max trick."""
        exponential = torch.empty_like(self.logits).exponential_(generator=generator)
        return (self.logits - exponential.log()).argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        return self.logits.log_softmax(-1).gather(-1, action.unsqueeze(-1)).squeeze(-1)  # [...]

    def entropy(self) -> Tensor:
        log_prob = self.logits.log_softmax(-1)
        return -(log_prob.exp() * log_prob).sum(-1)  # [...]

    def kl(self, other: Categorical) -> Tensor:
        """KL(self || other) [...]."""
        log_prob = self.logits.log_softmax(-1)
        return (log_prob.exp() * (log_prob - other.logits.log_softmax(-1))).sum(-1)


@dataclass(frozen=True)
class DiagonalGaussian(Record):
    """Independent normal actions."""

    mean: Tensor  # [..., A]
    log_std: Tensor  # [..., A] or [A]

    @property
    def mode(self) -> Tensor:
        return self.mean

    def sample(self, generator: torch.Generator) -> Tensor:
        noise = torch.empty_like(self.mean).normal_(generator=generator)
        return torch.addcmul(self.mean, noise, self.log_std.exp())

    def log_prob(self, action: Tensor) -> Tensor:
        scaled = (action - self.mean) * (-self.log_std).exp()
        return (-0.5 * scaled.square() - self.log_std - _LOG_SQRT_2PI).sum(-1)  # [...]

    def entropy(self) -> Tensor:
        return (self.log_std + 0.5 + _LOG_SQRT_2PI).expand_as(self.mean).sum(-1)  # [...]

    def kl(self, other: DiagonalGaussian) -> Tensor:
        """KL(self || other) [...]."""
        ratio = (2 * (self.log_std - other.log_std)).exp()
        distance = ((self.mean - other.mean) * (-other.log_std).exp()).square()
        return (0.5 * (ratio + distance - 1) + other.log_std - self.log_std).sum(-1)


@dataclass(frozen=True)
class TanhGaussian(Record):
    """The tanh of independent normal variables: actions in (-1, 1)."""

    mean: Tensor  # [..., A], before the tanh
    log_std: Tensor  # [..., A]

    @property
    def mode(self) -> Tensor:
        """The tanh of the mean, used as the deterministic action; the density's peak may lie elsewhere."""
        return self.mean.tanh()

    def sample(self, generator: torch.Generator) -> Tensor:
        return self.sample_with_log_prob(generator)[0]

    def sample_with_log_prob(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A differentiable sample [..., A] and its log density [...], exact even for samples close to one."""
        gaussian = DiagonalGaussian(self.mean, self.log_std)
        raw = gaussian.sample(generator)
        log_slope = 2 * (math.log(2) - raw - torch.nn.functional.softplus(-2 * raw))  # log derivative of tanh at raw
        return raw.tanh(), gaussian.log_prob(raw) - log_slope.sum(-1)
