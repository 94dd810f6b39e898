"""Mixtures of Gaussians with full covariances, fitted by expectation maximisation."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

_FLOOR = 1e-6  # on the diagonal of covariances
_NUM_STEPS = 40  # of expectation maximisation


class Mixture(NamedTuple):
    """A mixture of k Gaussians in F dimensions."""

    weight: Tensor  # [k], sums to one
    mean: Tensor  # [k, F]
    covariance: Tensor  # [k, F, F]

    def log_joint(self, data: Tensor) -> Tensor:
        """The log-density of each datum [K, F] with each component: [K, k]."""
        return self.weight.log() + MultivariateNormal(self.mean, self.covariance).log_prob(data[:, None])

    @property
    def num_parameters(self) -> int:
        components, size = self.mean.shape
        return components - 1 + components * (size + size * (size + 1) // 2)

    def akaike(self, data: Tensor) -> float:
        """Akaike's information criterion on data [K, F]; lower is better."""
        return 2 * self.num_parameters - 2 * float(self.log_joint(data).logsumexp(1).sum())


def fit(data: Tensor, num_components: int, generator: torch.Generator) -> Mixture:
    """The mixture of data [K, F], K at least `num_components`; its first means are data far from each other.

    Arthur and Vassilvitskii. k-means++: the advantages of careful seeding (2007), for the first means.
    """
    size = data.shape[1]
    floor = _FLOOR * torch.eye(size, dtype=data.dtype, device=data.device)
    first = torch.randint(len(data), (1,), generator=generator, device=data.device)
    while len(first) < num_components:
        distance = torch.cdist(data, data[first]).amin(1).square() + 1e-12
        first = torch.cat([first, distance.multinomial(1, generator=generator)])
    mixture = Mixture(
        data.new_full((num_components,), 1 / num_components),
        data[first],
        (data.T.cov().reshape(size, size) / num_components + floor).expand(num_components, -1, -1),
    )
    for _ in range(_NUM_STEPS):
        share = mixture.log_joint(data).softmax(1)  # [K, k]
        count = share.sum(0).clamp(min=_FLOOR)  # [k]
        mean = share.T @ data / count[:, None]
        off = data[:, None] - mean  # [K, k, F]
        covariance = torch.einsum("nk,nki,nkj->kij", share, off, off) / count[:, None, None]
        mixture = Mixture(count / count.sum(), mean, covariance + floor)
    return mixture
