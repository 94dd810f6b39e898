"""What was run: the settings of a run that differ from the defaults of its classes, and where it came from.

Only classes of our own catalogs are imported; nothing that a run names or keeps is run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, NamedTuple

from experiments.experiment.config_json import current, to_json
from experiments.experiment.definition import path_now
from experiments.experiment.names import OUR_CLASSES
from experiments.workbench.comparing.runs import flat
from metarl._lazy import imported
from metarl.source import TrainConfig

_NO_DEFAULT = "no default"


class Setting(NamedTuple):
    """A setting that differs from its default."""

    name: str
    value: str
    default: str


def changed_settings(config: Mapping[str, Any]) -> list[Setting]:
    """The settings of a run's family, agent and training that differ from the defaults, by dotted name.

    All settings of a part whose class is not one of our catalogs', with unknown defaults.
    """
    found: list[Setting] = []
    for part in ("family", "agent", "train"):
        values = config.get(part)
        if not isinstance(values, dict):
            continue
        cls = TrainConfig if part == "train" else _class_of(values.get("class"))
        values = {name: value for name, value in values.items() if name != "class"}
        if cls is None:
            found += [Setting(f"{part}.{name}", _text(value), "unknown") for name, value in flat(values).items()]
            continue
        defaults = _defaults(cls)
        for name, value in flat(current(f"{cls.__module__}:{cls.__qualname__}", values)).items():
            if name not in defaults:
                found.append(Setting(f"{part}.{name}", _text(value), _NO_DEFAULT))
            elif value != defaults[name]:
                found.append(Setting(f"{part}.{name}", _text(value), _text(defaults[name])))
    return found


def origin(config: Mapping[str, Any], meta: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where a run came from, as names and values: command, recipe, seed, commits, versions and machine."""
    versions = meta.get("versions")
    same = meta.get("same_bits_with")
    machine = [str(meta.get("platform", "")), f"cores: {meta['cpu_cores']}" if "cpu_cores" in meta else ""]
    if isinstance(same, dict):
        machine += [str(same.get("processor", "")), f"threads: {same['threads']}" if "threads" in same else ""]
    found = {
        "command": meta.get("command"),
        "recipe": config.get("experiment"),
        "seed": config.get("seed"),
        "device": config.get("device"),
        "started": meta.get("started"),
        "commit of MetaRL": _commit(meta.get("git")),
        "commit of your project": _commit(meta.get("project")),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items() if version is not None)
        if isinstance(versions, dict)
        else None,
        "machine": ", ".join(filter(None, machine)),
    }
    return [(name, str(value)) for name, value in found.items() if value not in (None, "")]


def _commit(commit: Any) -> str | None:
    if not isinstance(commit, dict):
        return None
    return f"{str(commit.get('commit'))[:12]}{' with uncommitted changes' if commit.get('changed') else ''}"


def _class_of(path: Any) -> type[Any] | None:
    """The class of a part; None for one that is not in our catalogs."""
    if not isinstance(path, str) or path_now(path) not in OUR_CLASSES:
        return None
    return imported(path_now(path))


def _defaults(cls: type[Any]) -> dict[str, Any]:
    """The default values of a dataclass as JSON has them, by dotted name; without fields that have none."""
    values: dict[str, Any] = {}
    for field in fields(cls):
        if field.default is not MISSING:
            values[field.name] = field.default
        elif field.default_factory is not MISSING:
            values[field.name] = field.default_factory()
    return flat(to_json(values))


def _text(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
