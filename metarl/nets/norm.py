"""Normalisation of images in few-shot nets: the source of the statistics affects scores and is therefore a setting.

Ioffe, Szegedy. Batch normalization (2015). Ba, Kiros, Hinton. Layer normalization (2016).
Ulyanov, Vedaldi, Lempitsky. Instance normalization (2016).
Bronskill et al. TaskNorm: rethinking batch normalization for meta-learning (2020), a comparison.

transductive  mean and variance of all images predicted together, at meta-test too: each prediction depends on the
              other queries (MAML's published scores).
running       the batch's statistics in meta-training, their running averages at meta-test.
tasknorm      TaskNorm-I: the support's, pooled with the image's own; the support's weight grows with its size.
layer         each image's own, over channels and pixels.
instance      each image's own, by channel.
none          no normalisation; a learned scale and shift only.

Statistics are computed as plain means, whose second derivatives are right under vmap of grad; those of torch's own
layers are silently wrong there. Where no second derivatives are needed, `fused` calls torch's kernels instead, with
equal results.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from metarl.parallel import Share, is_shared

Normalisation = Literal["transductive", "running", "tasknorm", "layer", "instance", "none"]

_MOMENTUM = 0.1  # momentum of the running averages
_EPSILON = 1e-5


class Norm(nn.Module):
    """Normalise images x [K, C, H, W] of one task; the first `num_context` of them are the support of the others.

    fused: use torch's own kernels, for nets that are differentiated once and outside vmap.
    """

    running_mean: Tensor  # [C]
    running_var: Tensor  # [C]

    def __init__(
        self, size: int, mode: Normalisation, *, fused: bool = False, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        if mode not in get_args(Normalisation):
            raise ValueError(f"normalisation is {mode!r}; must be one of {', '.join(get_args(Normalisation))}")
        self.mode, self.fused = mode, fused
        self.recording = False  # whether a plain forward pass updates the running averages
        self._pending: list[tuple[Tensor, Tensor]] = []  # mean and variance of each batch, if processes share tasks
        self.weight = nn.Parameter(torch.ones(size, device=device))
        self.bias = nn.Parameter(torch.zeros(size, device=device))
        if self.takes_context:  # the weight of the support's statistics is sigmoid(slope * size + offset)
            self.slope = nn.Parameter(torch.zeros((), device=device))
            self.offset = nn.Parameter(torch.zeros((), device=device))
        if self.keeps_statistics:
            self.register_buffer("running_mean", torch.zeros(size, device=device))
            self.register_buffer("running_var", torch.ones(size, device=device))

    @property
    def takes_context(self) -> bool:
        return self.mode == "tasknorm"

    @property
    def keeps_statistics(self) -> bool:
        return self.mode == "running"

    def forward(self, x: Tensor, num_context: int = 0) -> Tensor:
        if self.fused and self.mode in ("transductive", "running"):
            return self._fused(x)
        return self._normalised(x, num_context) * self.weight.view(-1, 1, 1) + self.bias.view(-1, 1, 1)

    def _normalised(self, x: Tensor, num_context: int) -> Tensor:
        if self.mode == "none":
            return x
        if self.mode == "running" and not self.training:
            return (x - self.running_mean.view(-1, 1, 1)) * (self.running_var.view(-1, 1, 1) + _EPSILON).rsqrt()
        if self.mode == "tasknorm":
            mean, variance = self._pooled(x, num_context or len(x))
        else:
            mean, variance = moments(x, {"layer": (1, 2, 3), "instance": (2, 3)}.get(self.mode, (0, 2, 3)))
        if self.recording:
            self._record(x, mean, variance)
        return (x - mean) * (variance + _EPSILON).rsqrt()

    def _pooled(self, x: Tensor, num_context: int) -> tuple[Tensor, Tensor]:
        """TaskNorm's moments: those of the weighted mixture of the support's and the image's statistics."""
        support_mean, support_variance = moments(x[:num_context], (0, 2, 3))
        mean, variance = moments(x, (2, 3))
        weight = (self.slope * num_context + self.offset).sigmoid()
        pooled = weight * support_mean + (1 - weight) * mean
        spread = weight * (support_variance + (support_mean - pooled).square())
        return pooled, spread + (1 - weight) * (variance + (mean - pooled).square())

    def _record(self, x: Tensor, mean: Tensor, variance: Tensor) -> None:
        count = x.numel() / x.shape[1]
        self.running_mean.lerp_(mean.flatten(), _MOMENTUM)
        self.running_var.lerp_(variance.flatten() * count / max(count - 1, 1), _MOMENTUM)

    def _fused(self, x: Tensor) -> Tensor:
        if self.mode == "transductive":
            return nn.functional.batch_norm(x, None, None, self.weight, self.bias, True, _MOMENTUM, _EPSILON)
        averages, momentum = (self.running_mean, self.running_var), _MOMENTUM
        if self.training and is_shared():
            averages, momentum = (torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)), 1.0
            self._pending.append(averages)
        return nn.functional.batch_norm(x, *averages, self.weight, self.bias, self.training, momentum, _EPSILON)

    @torch.no_grad()
    def absorb_pending(self, share: Share) -> None:
        """Move the running averages by the batches of all processes, each of one task, in the order of the tasks."""
        if not self._pending:
            return
        means, variances = (
            torch.stack(each).unflatten(0, (-1, share.size)) for each in zip(*self._pending, strict=True)
        )
        self._pending = []
        means, variances = share.gathered((means, variances), dim=1)  # [calls, N, C] each
        for mean, variance in zip(means.flatten(0, 1), variances.flatten(0, 1), strict=True):
            self.running_mean.lerp_(mean, _MOMENTUM)
            self.running_var.lerp_(variance, _MOMENTUM)


def moments(x: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance over the given axes, which are kept with size one."""
    mean = x.mean(axes, keepdim=True)
    return mean, (x - mean).square().mean(axes, keepdim=True)
