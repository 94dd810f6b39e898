"""What every comparison of an update with its peers shares: agreement before timing, and the optimiser in JAX."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Outcome = Sequence[Any]  # gradients, or parameters after an update: tensors or arrays
Work = Callable[[], Outcome]


def has_jax() -> bool:
    return importlib.util.find_spec("jax") is not None


def has_compiler() -> bool:
    """Whether torch.compile finds a C++ compiler."""
    return any(shutil.which(name) for name in ("g++", "clang++", "c++"))


def check_agreement(contenders: Mapping[str, Work], tolerance: float, start: Outcome = ()) -> None:
    """Check that all contenders' outcomes agree with that of the first; start: what is subtracted from both.

    This also warms them up: compilation is not part of what is timed.

    Raises:
        AssertionError: when the distance of two outcomes is larger than `tolerance`, relative to the first's size.
    """
    origin = flat(start) if start else 0.0
    first, *others = contenders
    expected = flat(contenders[first]()) - origin
    for name in others:
        distance = float(np.linalg.norm(flat(contenders[name]()) - origin - expected) / np.linalg.norm(expected))
        assert distance <= tolerance, f"{name} differs from {first} by {distance:.2g}; allowed is {tolerance:g}"


def flat(outcome: Outcome) -> NDArray[np.float64]:
    """All numbers of an outcome in one vector."""
    return np.concatenate([np.asarray(as_array(part), np.float64).ravel() for part in outcome])


def as_array(value: Any) -> Any:
    """A tensor as a numpy array; anything else as it is."""
    return value.detach().numpy() if isinstance(value, Tensor) else value


def arrays_of(net: nn.Module) -> list[Any]:
    """The parameters of a net as arrays of JAX, in the net's order."""
    import jax.numpy as jnp

    return [jnp.asarray(parameter.detach().numpy().copy()) for parameter in net.parameters()]


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function compiled by torch at its first call, maybe in parts; torch's own warnings then are not shown."""
    made = cache(lambda: torch.compile(function))

    def call(*arguments: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return made()(*arguments)

    return call


def add_compiled(found: dict[str, Work], work: Work) -> None:
    """Add the compiled contender where there is a compiler and torch can compile this work."""
    if not has_compiler():
        return
    from torch._dynamo.exc import TorchDynamoException

    with contextlib.suppress(TorchDynamoException):
        work()
        found["compiled"] = work


def jax_perceptron(params: Sequence[Any], x: Any, activation: Callable[[Any], Any]) -> Any:
    """Linear layers on x [..., in], whose weights [out, in] and biases alternate, with the activation between them."""
    for index in range(0, len(params), 2):
        x = x @ params[index].T + params[index + 1]
        if index + 2 < len(params):
            x = activation(x)
    return x


def jax_adam(
    params: Any, gradient: Any, state: Any, *, learning_rate: float, epsilon: float, max_norm: float | None
) -> tuple[Any, Any]:
    """One step of Adam on a tree of arrays after clipping the gradient's norm; state: number of steps and moments."""
    import jax
    import jax.numpy as jnp

    if max_norm is not None:
        norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient)))
        gradient = jax.tree.map(lambda leaf: leaf * jnp.minimum(1.0, max_norm / (norm + 1e-6)), gradient)
    count, mean, square = state
    count = count + 1
    mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, gradient)
    square = jax.tree.map(lambda s, g: 0.999 * s + 0.001 * g * g, square, gradient)

    def moved(p: Any, m: Any, s: Any) -> Any:
        return p - learning_rate * (m / (1 - 0.9**count)) / (jnp.sqrt(s / (1 - 0.999**count)) + epsilon)

    return jax.tree.map(moved, params, mean, square), (count, mean, square)


def jax_adam_start(params: Any) -> Any:
    """The state of `jax_adam` before the first step."""
    import jax
    import jax.numpy as jnp

    zeros = jax.tree.map(jnp.zeros_like, params)
    return jnp.zeros(()), zeros, zeros
