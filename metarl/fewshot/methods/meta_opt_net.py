"""MetaOptNet: the optimal linear classifier of the examples, solved exactly and differentiably.

Lee, Maji, Ravichandran, Soatto. Meta-learning with differentiable convex optimization (2019), MetaOptNet.
Bertinetto, Henriques, Torr, Vedaldi. Meta-learning with differentiable closed-form solvers (2019), for the ridge.
Crammer, Singer. On the algorithmic implementation of multiclass kernel-based vector machines (2001), for the SVM.
Beck, Teboulle. A fast iterative shrinkage-thresholding algorithm for linear inverse problems (2009), for its solver,
with Nesterov's momentum (2004) for a curvature that is bounded from below.
Amos, Kolter. OptNet: differentiable optimization as a layer in neural networks (2017), for its derivatives.

Both are solved for the dual variables, one per example and class, so the problem's size does not depend on the
embedding's. The SVM's dual variables minimise, for many tasks at once,
1/2 sum_w a_w' G a_w - sum_i a_{i, y_i}  over a [K, W] with  sum_w a_iw = 0  and  a_iw <= C [w = y_i].

With b = C [w = y] - a, each example's b lies in a simplex of size C; projected gradient steps onto the simplices find
the optimum. There, the entries of b that are zero stay zero for small changes of G, and the others solve linear
equations, whose derivatives are those of the optimum.

Deviations: 1. the learned scale of the logits starts at ten and not at one; 2. support and queries are embedded
separately, so running statistics are updated by one, then the other; the published code normalises both together in
meta-training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from metarl.checks import positive, rounds
from metarl.fewshot.amortised import ExampleAdaptation
from metarl.fewshot.embedding import EmbeddingConfig
from metarl.fewshot.problem import Classification
from metarl.fewshot.seen_classes import EmbeddedExamples
from metarl.nets.conv import ConvNet
from metarl.records import Examples, Record


@dataclass(frozen=True)
class DualState(Record):
    """The examples, and their dual variables."""

    seen: EmbeddedExamples
    dual: Tensor  # [N, K, W]; a class's weights are the sum of embeddings weighted by it


class Head(Protocol):
    """The solver of a linear classifier."""

    def __call__(self, gram: Tensor, member: Tensor) -> Tensor:
        """Dual variables [N, K, W], differentiable in the products of embeddings `gram` [N, K, K].

        member [N, K, W] bool: the class of each example; padding has none, and its products are zero.
        """
        ...


@dataclass(frozen=True)
class Ridge:
    """Ridge regression on one-hot labels, in closed form."""

    ridge: float  # L2 penalty on the weights

    def __call__(self, gram: Tensor, member: Tensor) -> Tensor:
        return torch.linalg.solve(_with_ridge(gram, self.ridge), member.to(gram.dtype))


@dataclass(frozen=True)
class SupportVectors:
    """Crammer and Singer's multi-class SVM: a penalty unless the right class's logit leads all others by one.

    num_steps: steps of the solver, which must identify the active constraints within them.
    """

    ridge: float  # L2 penalty on the dual variables, as in the published code, which makes the solution unique
    cost: float  # slack penalty C
    num_steps: int

    def __call__(self, gram: Tensor, member: Tensor) -> Tensor:
        return dual_variables(_with_ridge(gram, self.ridge), member, self.cost, self.num_steps, least=self.ridge)


class ConvexHeadAdaptation(ExampleAdaptation[DualState]):
    """The optimal linear classifier of the examples' embeddings, without bias, times a learned scale.

    embed: images [N, K, ...] -> [N, K, D].
    """

    def __init__(self, embed: ConvNet, head: Head) -> None:
        super().__init__()
        self.embed, self.head = embed, head
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())

    def prior(self, num_tasks: int) -> DualState:
        seen = EmbeddedExamples.empty(num_tasks, self.embed.output_size, self.log_scale)
        return DualState(seen, seen.x.new_zeros(num_tasks, 0, 0))

    def adapt(self, state: DualState, context: Examples) -> DualState:
        """The optimal classifier of the examples of context [N, K, ...] and all earlier ones."""
        seen = state.seen.append(self.embed(context.x), context.y, context.valid)
        return DualState(seen, self.head(seen.x @ seen.x.mT, seen.member))

    def predict(self, state: DualState, x: Tensor) -> Tensor:
        """Logits [N, Q, W] for queries x [N, Q, ...]."""
        logits = self.embed(x) @ (state.seen.x.mT @ state.dual)
        return state.seen.mask_unseen(self.log_scale.exp() * logits)


def _with_ridge(gram: Tensor, ridge: float) -> Tensor:
    return gram + ridge * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)


_ACTIVE = 1e-6  # fraction of a simplex's size below which an entry counts as zero


def dual_variables(gram: Tensor, member: Tensor, cost: float, num_steps: int, *, least: float) -> Tensor:
    """The optimum a [N, K, W], differentiable in `gram`.

    gram [N, K, K]: symmetric, with no eigenvalue below `least` > 0. member [N, K, W] bool: one class per example, none
    for padding, whose variables are zero; classes without examples are ignored. The steps need only find which
    variables are free, which takes more of them the larger gram is relative to `least`.
    """
    target = member.to(gram.dtype)
    with torch.no_grad():
        inside = _simplices(gram, target, cost, num_steps, least)  # b
    return _on_free(gram, target, cost, inside > _ACTIVE * cost)


def _simplices(gram: Tensor, target: Tensor, cost: float, num_steps: int, least: float) -> Tensor:
    """b [N, K, W] after `num_steps` accelerated projected gradient steps."""
    competing = target.amax(1, keepdim=True) * target.amax(2, keepdim=True) > 0  # [N, K, W]
    most = gram.abs().sum(-1).amax(-1)[:, None, None]  # the largest row sum bounds the eigenvalues
    root = (least / most).sqrt()
    momentum = (1 - root) / (1 + root)
    point = ahead = cost * target
    for _ in range(num_steps):
        downhill = gram @ (cost * target - ahead) - target
        before, point = point, nearest_in_simplex(ahead + downhill / most, competing, cost)
        ahead = point + momentum * (point - before)
    return point


def nearest_in_simplex(values: Tensor, competing: Tensor, size: float) -> Tensor:
    """The nearest point whose competing entries [..., W] are non-negative and sum to `size`; other entries are zero.

    All zero if no entry competes.
    """
    low = values.amin(-1, keepdim=True) - 2 * size  # low enough to be projected to zero
    ordered = torch.where(competing, values, low).sort(-1, descending=True).values
    surplus = ordered.cumsum(-1) - size
    places = torch.arange(1, values.shape[-1] + 1, dtype=values.dtype, device=values.device)
    count = (ordered * places > surplus).sum(-1, keepdim=True)
    shift = surplus.gather(-1, count - 1) / count
    return (values - shift).clamp(min=0) * competing


def _on_free(gram: Tensor, target: Tensor, cost: float, free: Tensor) -> Tensor:
    """a [N, K, W], where only `free` entries may differ from C [w = y]: the solution of linear equations.

    The unknowns are a and a multiplier [N, K] of each example's sum constraint. Given the multipliers, each class's
    variables are solved for separately; the constraint that all sums are zero then gives the multipliers.
    """
    fixed = (cost * target * ~free).mT  # [N, W, K]
    mask = free.mT.to(gram.dtype)
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    curvature = mask.unsqueeze(-1) * gram.unsqueeze(1) * mask.unsqueeze(-2) + torch.diag_embed(1 - mask)  # [N, W, K, K]
    inverse = torch.linalg.solve(curvature, eye.expand(curvature.shape))
    inverse = inverse * mask.unsqueeze(-1) * mask.unsqueeze(-2)
    unpriced = fixed + (inverse @ (target.mT - fixed @ gram).unsqueeze(-1)).squeeze(-1)
    no_sum = torch.diag_embed((~free.any(-1)).to(gram.dtype))  # the multiplier of padding is zero
    price = torch.linalg.solve(inverse.sum(1) + no_sum, unpriced.sum(1))
    return (unpriced - (inverse @ price[:, None, :, None]).squeeze(-1)).mT


@dataclass(frozen=True)
class MetaOptNetConfig(EmbeddingConfig):
    """MetaOptNet: the optimal linear classifier of the examples' embeddings, an SVM or ridge regression.

    The embedding is learned through the optimum.
    """

    head: Literal["svm", "ridge"] = "svm"  # kind of classifier: support vector machine or ridge regression
    ridge: float = 1.0  # L2 penalty, added to the diagonal of the embeddings' Gram matrix
    cost: float = 0.1  # slack penalty C of the support vector machine
    num_steps: int = 200  # number of steps of the SVM's dual solver

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "ridge", "cost")
        rounds(self, "num_steps")

    def make_adaptation(
        self, embed: ConvNet, problem: Classification, generator: torch.Generator
    ) -> ConvexHeadAdaptation:
        head = Ridge(self.ridge) if self.head == "ridge" else SupportVectors(self.ridge, self.cost, self.num_steps)
        return ConvexHeadAdaptation(embed, head)
