"""Seeding of the random streams that some environments share with the whole process, for one row at a time.

Gymnasium seeds an environment's own generator only, but some environments draw from the global streams of numpy, Python
or torch, or sample their spaces. The draws of a row must not depend on other rows of its process, or results would
change with the number of workers.
"""

from __future__ import annotations

import copy
import inspect
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


def seed_streams(seed: int) -> None:
    """Seed the global streams of numpy, Python and, where it is loaded, torch on the CPU; `seed` has 32 bits."""
    random.seed(seed)
    np.random.seed(seed)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.default_generator.manual_seed(seed)


@contextmanager
def streams_kept() -> Iterator[None]:
    """Restore the global streams at the end of the context."""
    torch = sys.modules.get("torch")
    python, numpy = random.getstate(), np.random.get_state()
    state = None if torch is None else torch.default_generator.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        if torch is not None:
            torch.default_generator.set_state(state)


def own_spaces(env: gymnasium.Env[Any, Any]) -> None:
    """Give an environment its own copies of spaces that are class attributes, which all rows would sample in turn."""
    for layer in _layers(env):
        for name in ("action_space", "observation_space"):
            space = inspect.getattr_static(type(layer), name, None)
            if isinstance(space, spaces.Space) and name not in vars(layer):
                setattr(layer, name, copy.deepcopy(space))


def seed_spaces(env: gymnasium.Env[Any, Any], seed: int) -> None:
    """Seed the generators of `action_space.sample()` and `observation_space.sample()`, in wrappers too."""
    for layer in _layers(env):
        layer.action_space.seed(seed)
        layer.observation_space.seed(seed)


def _layers(env: gymnasium.Env[Any, Any]) -> Iterator[gymnasium.Env[Any, Any]]:
    """An environment's wrappers, the outermost first, and the environment itself."""
    while isinstance(env, gymnasium.Wrapper):
        yield env
        env = env.env
    yield env
