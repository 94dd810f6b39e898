"""Networks: multi-layer perceptrons and policy heads, initialised from a torch.Generator."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from gymnasium import spaces
from torch import Tensor, nn

from metarl.nets.distributions import Categorical, DiagonalGaussian
from metarl.nets.initialisation import orthogonal_

Activation = Literal["tanh", "relu", "silu"]


class Tanh(nn.Module):
    """tanh; for float32 on CPUs computed via sigmoid, with an error of at most 2e-7.

    On some CPUs (AMD's), torch's own tanh is four times slower and would take half of a small policy's meta-update.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float32 or x.device.type != "cpu":
            return x.tanh()
        return _LogisticTanh.apply(x) if torch.is_grad_enabled() else _logistic_tanh(x)  # pyright: ignore


def _logistic_tanh(x: Tensor) -> Tensor:
    return (x + x).sigmoid_().mul_(2).sub_(1)


class _LogisticTanh(torch.autograd.Function):
    """Saves only its output; derivatives of any order equal those of torch's tanh, in one pass each."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return _logistic_tanh(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (output,) = ctx.saved_tensors
        return torch.ops.aten.tanh_backward(slope, output)


ACTIVATIONS: dict[Activation, type[nn.Module]] = {"tanh": Tanh, "relu": nn.ReLU, "silu": nn.SiLU}


class Linear(nn.Linear):
    """A linear layer whose parameters may have a task axis, given by torch.func.functional_call.

    weight [out, in], bias [out]: x [..., in] -> [..., out]. weight [N, out, in], bias [N, out]: x [N, K, in] ->
    [N, K, out], each task with its own parameters, in one batched matrix product. Either of the two may be shared.
    """

    takes_tasks = True

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        if self.bias.ndim == 1 and self.weight.ndim == 2:
            return nn.functional.linear(x, self.weight, self.bias)
        bias = _for_items(self.bias)
        if self.weight.ndim == 2:
            return nn.functional.linear(x, self.weight) + bias
        if len(self.weight) == 1 and self.bias.ndim == 2:  # a plain product is faster here
            return nn.functional.linear(x, self.weight.squeeze(0), self.bias.squeeze(0))
        return torch.baddbmm(bias, x, self.weight.mT)


def _for_items(parameter: Tensor) -> Tensor:
    """[size] as it is, [N, size] as [N, 1, size]: ready to broadcast over the items of each task."""
    return parameter if parameter.ndim == 1 else parameter.unsqueeze(-2)


def takes_tasks(net: nn.Module) -> bool:
    """Whether all parameters of a net may have a task axis: each belongs to a module that supports one."""
    return all(
        getattr(module, "takes_tasks", False) for module in net.modules() if list(module.parameters(recurse=False))
    )


def key_of(name: str) -> str:
    """A parameter's name as a valid key of an nn.ParameterDict or name of a buffer."""
    return name.replace(".", "/")


def linear(fan_in: int, fan_out: int, *, gain: float, generator: torch.Generator) -> Linear:
    """A linear layer with orthogonal weights of the given gain and zero bias, on the generator's device."""
    layer = Linear(fan_in, fan_out, device=generator.device)
    orthogonal_(layer.weight, gain, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def mlp(
    sizes: Sequence[int], *, activation: Activation, generator: torch.Generator, output_gain: float | None = None
) -> nn.Sequential:
    """Linear layers from sizes[0] to sizes[-1] with the activation between them.

    The last layer is linear with gain `output_gain`; if that is None, the activation follows it too (a body, not a
    head). A single size gives the identity.
    """
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        is_head = output_gain is not None and i == len(sizes) - 2
        gain = output_gain if is_head and output_gain is not None else math.sqrt(2)
        layers.append(linear(fan_in, fan_out, gain=gain, generator=generator))
        if not is_head:
            layers.append(ACTIVATIONS[activation]())
    return nn.Sequential(*layers)


def ensemble(nets: Sequence[nn.Sequential]) -> nn.Sequential:
    """Several nets of one shape combined into one with batched matrix products: x [E, K, in] -> [E, K, out].

    They must consist of our `Linear` and modules without parameters, like those from `mlp`.
    """
    joint = copy.deepcopy(nets[0])
    for name, layer in joint.named_modules():
        if isinstance(layer, Linear):
            for part in ("weight", "bias"):
                each = [net.get_parameter(f"{name}.{part}").detach() for net in nets]
                setattr(layer, part, nn.Parameter(torch.stack(each)))
    return joint


def center_and_half_range(box: spaces.Box, device: torch.device) -> tuple[Tensor, Tensor]:
    """The centre and half range of a box of actions, [A] each; the half range is 1 where low equals high.

    Raises:
        ValueError: when it is unbounded.
    """
    low, high = (torch.as_tensor(limit, device=device) for limit in (box.low, box.high))
    if not torch.isfinite(high - low).all():
        raise ValueError(f"action_space is {box}; must be bounded")
    half_range = (high - low) / 2
    return (high + low) / 2, torch.where(half_range == 0, 1.0, half_range)


class PolicyHead(nn.Module):
    """Turns features into an action distribution that fits the action space.

    Box actions are Gaussian in policy units, where the box is [-action_scale, action_scale] on every axis, with a
    learned state-independent log standard deviation of at least log(min_std); `to_env` and `from_env` convert. Discrete
    actions are categorical. If the parameters have a task axis, so have the features: [N, K, size].
    """

    takes_tasks = True

    def __init__(
        self,
        sizes: Sequence[int],
        action_space: spaces.Box | spaces.Discrete,
        *,
        activation: Activation,
        init_std: float,
        action_scale: float = 1.0,
        min_std: float = 0.0,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.is_discrete = isinstance(action_space, spaces.Discrete)
        self.action_scale, self.min_std = action_scale, min_std
        self.num_actions = int(action_space.n) if isinstance(action_space, spaces.Discrete) else action_space.shape[0]
        self.net = mlp([*sizes, self.num_actions], activation=activation, output_gain=0.01, generator=generator)
        if isinstance(action_space, spaces.Box):
            center, half_range = center_and_half_range(action_space, generator.device)
            self.register_buffer("center", center, persistent=False)
            self.register_buffer("half_range", half_range / action_scale, persistent=False)
            self.log_std = nn.Parameter(torch.full((self.num_actions,), math.log(init_std), device=generator.device))

    center: Tensor  # [A]
    half_range: Tensor  # [A], half range of the box per policy unit

    def forward(self, features: Tensor) -> Categorical | DiagonalGaussian:
        return self.distribution(self.net(features))

    def distribution(self, output: Tensor) -> Categorical | DiagonalGaussian:
        """The distribution with these logits, or with these means and the learned standard deviation, [..., A]."""
        if self.is_discrete:
            return Categorical(output)
        log_std = self.log_std if self.min_std == 0 else self.log_std.clamp(min=math.log(self.min_std))
        return DiagonalGaussian(output, _for_items(log_std))

    def to_env(self, action: Tensor) -> Tensor:
        """An action in environment units, from policy units."""
        return action if self.is_discrete else torch.addcmul(self.center, action, self.half_range)

    def from_env(self, action: Tensor) -> Tensor:
        """An action in policy units, from environment units."""
        return action if self.is_discrete else (action - self.center) / self.half_range

    def encode(self, action: Tensor) -> Tensor:
        """An action (environment units) as network input [..., A]: one-hot, or scaled and clipped to [-1, 1]."""
        if self.is_discrete:
            return nn.functional.one_hot(action, self.num_actions).to(torch.float32)
        return (self.from_env(action) / self.action_scale).clamp(-1, 1)


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis [..., size] with correct second derivatives under vmap of grad.

    Ba, Kiros, Hinton. Layer normalization (2016). torch's own, with scale and shift, is silently wrong there.
    """

    takes_tasks = True

    def __init__(self, size: int, *, epsilon: float = 1e-5, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size, device=device))
        self.bias = nn.Parameter(torch.zeros(size, device=device))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        normalised = centred * (centred.square().mean(-1, keepdim=True) + self.epsilon).rsqrt()
        return normalised * _for_items(self.weight) + _for_items(self.bias)
