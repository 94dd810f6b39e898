"""Fresh weights that do not depend on how many threads torch has."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metarl.torch_settings import torch_threads

# The decomposition behind orthogonal weights rounds differently for each number of threads. This is the number that a
# machine with two cores, on which published runs were made, has by default.
_THREADS = 2


def orthogonal_(weight: Tensor, gain: float = 1.0, *, generator: torch.Generator) -> Tensor:
    """Fill a matrix with orthogonal rows or columns of length `gain`: the same numbers with any number of threads."""
    with torch_threads(_THREADS):
        return nn.init.orthogonal_(weight, gain, generator=generator)
