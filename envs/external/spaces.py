"""Flat observations and actions for third-party environments, whatever their spaces.

A discrete part of a larger space takes one number per choice: one-hot in an observation; in an action, the largest
number is the choice. Integers of an action are rounded. Order and sizes are those of `gymnasium.spaces.utils.flatten`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

MAX_NUMBERS = 1000  # of an array with two or more axes; a larger one is treated as an image

_ACTIONS = "Discrete, MultiDiscrete, MultiBinary, a Box, or a Tuple or Dict of these"


def flat_spaces(
    env: gymnasium.Env[Any, Any], flatten_images: bool = False
) -> tuple[spaces.Box, spaces.Box | spaces.Discrete]:
    """An environment's flat observation space, and its action space: flat too, or counted from zero.

    Raises:
        ValueError: when one of them cannot be made flat, or observations are images and `flatten_images` is false.
    """
    space = env.observation_space
    try:
        flat = spaces.flatten_space(space)
    except NotImplementedError:
        flat = None
    if not isinstance(flat, spaces.Box) or not flat.shape[0]:
        raise ValueError(f"its observation space is {space}; must be one that Gymnasium can flatten")
    image = next(filter(_is_image, _boxes(space)), None)
    if image is not None and not flatten_images:
        raise ValueError(
            f"its observations contain an image, {image}, which is {image.low.size} numbers when flattened: "
            "wrap the environment in one that observes a vector of features, or set flatten_images=True"
        )
    action_space = env.action_space
    if isinstance(action_space, spaces.Discrete):
        return _float_box(flat.low, flat.high), spaces.Discrete(int(action_space.n))
    limits = list(_action_limits(action_space))
    low, high = (np.concatenate([limit[end] for limit in limits]) if limits else np.zeros(0) for end in (0, 1))
    if not low.size:
        raise ValueError(f"its action space is {action_space}, which has no numbers")
    return _float_box(flat.low, flat.high), _float_box(low, high)


def encode(space: spaces.Space[Any], value: Any, name: str = "observation") -> NDArray[np.float32]:
    """An observation as flat numbers [O].

    Raises:
        ValueError: when it does not fit its space; names the part.
    """
    if isinstance(space, spaces.Box):
        numbers = np.asarray(value).ravel()
        if numbers.dtype != np.float32:
            if numbers.dtype.kind not in "biuf":
                raise ValueError(f"{name} is {_short(value)}; must be numbers of shape {space.shape}")
            with np.errstate(over="ignore"):
                numbers = numbers.astype(np.float32)
        if numbers.size != space.low.size:
            raise ValueError(f"{name} has shape {np.shape(value)}; must be {space.shape}")
        return numbers
    if isinstance(space, spaces.Dict):
        if not isinstance(value, Mapping):
            raise ValueError(f"{name} is a {type(value).__name__}; must be a dict with {', '.join(map(str, space))}")
        for key in space.spaces:
            if key not in value:
                raise ValueError(f"{name} lacks {key!r}; must be a dict with {', '.join(map(str, space))}")
        return np.concatenate([encode(part, value[key], f"{name}[{key!r}]") for key, part in space.spaces.items()])
    if isinstance(space, spaces.Tuple):
        if not isinstance(value, (tuple, list)) or len(value) != len(space.spaces):
            raise ValueError(f"{name} is {_short(value)}; must be {len(space.spaces)} parts of {space}")
        parts = zip(space.spaces, value, strict=True)
        return np.concatenate([encode(part, each, f"{name}[{index}]") for index, (part, each) in enumerate(parts)])
    if not space.contains(value):
        raise ValueError(f"{name} is {_short(value)}; must be in {space}")
    return np.asarray(spaces.flatten(space, value), dtype=np.float32)


def decode(space: Any, numbers: NDArray[Any]) -> Any:
    """A flat action [A], or a number counted from zero, as the environment takes it; clipped to its box."""
    if isinstance(space, spaces.Discrete):
        choice = numbers if numbers.ndim == 0 else numbers.argmax()
        return space.dtype.type(space.start + choice)
    if isinstance(space, spaces.MultiDiscrete):
        parts = np.split(numbers, np.cumsum(space.nvec.ravel())[:-1])
        choices = np.array([part.argmax() for part in parts]).reshape(space.shape)
        return (space.start + choices).astype(space.dtype)
    if isinstance(space, spaces.MultiBinary):
        return (numbers > 0.5).astype(space.dtype).reshape(space.shape)
    if isinstance(space, spaces.Box):
        is_whole = space.dtype.kind != "f"
        values = (np.rint(numbers) if is_whole else numbers).reshape(space.shape)
        return np.asarray(np.minimum(np.maximum(values, space.low), space.high), dtype=space.dtype)
    parts = tuple(space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces)
    edges = np.cumsum([0, *map(spaces.flatdim, parts)])
    actions = [decode(part, numbers[edges[i] : edges[i + 1]]) for i, part in enumerate(parts)]
    return dict(zip(space.spaces, actions, strict=True)) if isinstance(space, spaces.Dict) else tuple(actions)


def _action_limits(space: spaces.Space[Any]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """The low and high limits of an action space's flat parts, [A] each; half an integer wider for integers.

    Raises:
        ValueError: for a space that cannot be made flat.
    """
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        for part in space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces:
            yield from _action_limits(part)
    elif isinstance(space, spaces.Box):
        margin = 0.0 if space.dtype.kind == "f" else 0.5
        low = np.where(space.bounded_below, space.low - margin, -np.inf)
        yield low.ravel(), np.where(space.bounded_above, space.high + margin, np.inf).ravel()
    elif isinstance(space, (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
        size = spaces.flatdim(space)
        yield np.zeros(size), np.ones(size)
    else:
        raise ValueError(f"its action space has {space}; must be {_ACTIONS}")


def _boxes(space: spaces.Space[Any]) -> Iterator[spaces.Box]:
    if isinstance(space, spaces.Box):
        yield space
    elif isinstance(space, (spaces.Dict, spaces.Tuple)):
        for part in space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces:
            yield from _boxes(part)


def _is_image(box: spaces.Box) -> bool:
    """Whether an array of two or more axes is an image: of bytes from 0 to 255, or large."""
    if len(box.shape) < 2:
        return False
    is_of_bytes = box.dtype == np.uint8 and bool((box.low == 0).all() and (box.high == 255).all())
    return is_of_bytes or box.low.size > MAX_NUMBERS


def _float_box(low: NDArray[Any], high: NDArray[Any]) -> spaces.Box:
    with np.errstate(over="ignore"):  # a limit of float64 may be infinite here
        return spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)


def _short(value: Any) -> str:
    """A value in at most 80 characters of one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
