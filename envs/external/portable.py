"""What a worker process needs of this one: functions, and environments that are registered here.

A fresh process knows installed packages and what lies on `sys.path`; it knows neither a recipe, nor the modules beside
it, nor the main module of a script. Whatever is defined there travels by value.
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
    """Make sure that a maker, and the environment that its id stands for, can travel to a worker.

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
    """Environments by id that Gymnasium itself does not bring, as workers can know them; others are left out."""
    _send_by_value()
    found = {}
    for name, spec in gymnasium.registry.items():
        if isinstance(spec.entry_point, str) and spec.entry_point.startswith("gymnasium."):
            continue
        try:
            portable = _portable(spec)
            cloudpickle.dumps(portable)
        except Exception:  # such as a class with an open file; only who asks for it needs to know
            continue
        found[name] = portable
    return found


def _portable(spec: EnvSpec) -> EnvSpec:
    """A registered environment with its class itself, in place of a path that a worker could not import."""
    entry = spec.entry_point
    if not isinstance(entry, str):
        return spec
    module = entry.partition(":")[0]
    by_name = _can_be_imported(module.partition(".")[0]) and module not in cloudpickle.list_registry_pickle_by_value()
    return spec if by_name else replace(spec, entry_point=load_env_creator(entry))


def _send_by_value() -> None:
    """Make all modules travel by value that a fresh process would not find."""
    for name, module in list(sys.modules.items()):
        top = name.partition(".")[0]
        if name != "__main__" and getattr(module, "__file__", None) and not _can_be_imported(top):
            cloudpickle.register_pickle_by_value(module)


def _can_be_imported(top: str) -> bool:
    """Whether a fresh process would find a package or module, whatever this one has loaded."""
    return top != "__main__" and _is_found(top, tuple(sys.path))


@cache
def _is_found(top: str, path: tuple[str, ...]) -> bool:
    return any(finder.find_spec(top, None) is not None for finder in sys.meta_path)
