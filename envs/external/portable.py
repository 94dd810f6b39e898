"""Sending functions and registered environments to worker processes.

A worker can import installed packages and modules on `sys.path`, but neither a recipe, nor the modules in its folder,
nor the main module of a script. Code from those is pickled by value.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache

import cloudpickle
import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator

from envs.external.rows import Maker


def check_portable(maker: Maker) -> None:
    """Check that a maker, and the registered environment of its id, can be sent to a worker.

    Raises:
        ValueError: when they cannot be pickled.
    """
    _send_by_value()
    named = gymnasium.registry.get(maker.env.rpartition(":")[2]) if isinstance(maker.env, str) else None
    try:
        cloudpickle.dumps((maker, None if named is None else _portable(named)))
    except Exception as error:  # each type has its own way to refuse
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"it cannot be sent to a worker process: {reason}; num_workers=0 needs none") from error


def registered_here() -> dict[str, EnvSpec]:
    """The registered environments by id, without Gymnasium's own and those that cannot be pickled."""
    _send_by_value()
    found = {}
    for name, spec in gymnasium.registry.items():
        if isinstance(spec.entry_point, str) and spec.entry_point.startswith("gymnasium."):
            continue
        try:
            portable = _portable(spec)
            cloudpickle.dumps(portable)
        except Exception:  # such as a class with an open file; `check_portable` reports the one that is used
            continue
        found[name] = portable
    return found


def _portable(spec: EnvSpec) -> EnvSpec:
    """A registered environment whose entry point is the class itself where a worker could not import its path."""
    entry = spec.entry_point
    if not isinstance(entry, str):
        return spec
    module = entry.partition(":")[0]
    by_name = _can_be_imported(module.partition(".")[0]) and module not in cloudpickle.list_registry_pickle_by_value()
    return spec if by_name else replace(spec, entry_point=load_env_creator(entry))


def _send_by_value() -> None:
    """Pickle by value all modules that a fresh process would not find."""
    for name, module in list(sys.modules.items()):
        top = name.partition(".")[0]
        if name != "__main__" and getattr(module, "__file__", None) and not _can_be_imported(top):
            cloudpickle.register_pickle_by_value(module)


def _can_be_imported(top: str) -> bool:
    """Whether a fresh process would find a top-level package or module."""
    return top != "__main__" and _is_found(top, tuple(sys.path))


@cache
def _is_found(top: str, path: tuple[str, ...]) -> bool:
    return any(finder.find_spec(top, None) is not None for finder in sys.meta_path)
