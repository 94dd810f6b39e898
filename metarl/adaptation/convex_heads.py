"""Adaptation by the best linear classifier of the examples, an optimum that is found exactly and differentiable.

Lee, Maji, Ravichandran, Soatto. Meta-learning with differentiable convex optimization (2019), MetaOptNet.
Bertinetto, Henriques, Torr, Vedaldi. Meta-learning with differentiable closed-form solvers (2019), for the ridge.
Crammer, Singer. On the algorithmic implementation of multiclass kernel-based vector machines (2001), for the SVM.

Both are solved for the dual variables, one for each example and class, so that what is solved does not grow with the
embedding.

Deviations: 1. the learned scale of the logits starts at ten and not at one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from metarl.adaptation.metric import Embedded
from metarl.adaptation.support_vectors import dual_variables
from metarl.records import Examples, Record


@dataclass(frozen=True)
class DualState(Record):
    """The examples, and by how much each of them weighs for each class."""

    seen: Embedded
    dual: Tensor  # [N, K, W]; a class's weights are the sum of the embeddings by it


class Head(Protocol):
    """What is best for the examples."""

    def __call__(self, gram: Tensor, member: Tensor) -> Tensor:
        """Dual variables [N, K, W], differentiable in the products of embeddings `gram` [N, K, K].

        member [N, K, W] bool: the class of each example; padding is of none, and its products are zero.
        """
        ...


@dataclass(frozen=True)
class Ridge:
    """Least squares on one for the right class and zero for others, in closed form."""

    ridge: float  # weight of the squared weights

    def __call__(self, gram: Tensor, member: Tensor) -> Tensor:
        return torch.linalg.solve(_with_ridge(gram, self.ridge), member.to(gram.dtype))


@dataclass(frozen=True)
class SupportVectors:
    """Crammer and Singer's machine: the right class's logit leads each other one by one, or it costs.

    num_steps: of its solver, by which it must know which examples and classes bind.
    """

    ridge: float  # beside the squared weights, of the dual variables; as in the published code, for a solution alone
    cost: float  # C, of what lacks to the lead
    num_steps: int

    def __call__(self, gram: Tensor, member: Tensor) -> Tensor:
        return dual_variables(_with_ridge(gram, self.ridge), member, self.cost, self.num_steps, least=self.ridge)


class ConvexHeadAdaptation(nn.Module):
    """A linear classifier of embeddings, without bias, that is the best for the examples; times a learned scale.

    embed: images [N, K, ...] -> [N, K, size].
    """

    def __init__(self, embed: nn.Module, head: Head, *, size: int) -> None:
        super().__init__()
        self.embed, self.head, self.size = embed, head, size
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())

    def prior(self, num_tasks: int) -> DualState:
        seen = Embedded.none(num_tasks, self.size, self.log_scale)
        return DualState(seen, seen.x.new_zeros(num_tasks, 0, 0))

    def adapt(self, state: DualState, context: Examples) -> DualState:
        """The best classifier of the examples of context [N, K, ...] and of those seen before."""
        seen = state.seen.added(self.embed(context.x), context.y, context.valid)
        return DualState(seen, self.head(seen.x @ seen.x.mT, seen.member))

    def predict(self, state: DualState, x: Tensor) -> Tensor:
        """Logits [N, Q, W] for queries x [N, Q, ...]."""
        logits = self.embed(x) @ (state.seen.x.mT @ state.dual)
        return state.seen.of_seen(self.log_scale.exp() * logits)


def _with_ridge(gram: Tensor, ridge: float) -> Tensor:
    return gram + ridge * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
