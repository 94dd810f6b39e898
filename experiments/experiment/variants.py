"""Fields that hold one of several configurations, chosen by name: `--agent.memory snail`.

A dataclass field names them in its metadata: field(..., metadata={"variants": {"snail": SnailConfig(), ...}}).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from experiments.experiment.definition import Experiment
from experiments.experiment.names import suggestion
from metarl.errors import UserError

E = TypeVar("E", bound=Experiment[Any, Any])


def variants(settings: Any) -> dict[str, Mapping[str, Any]]:
    """The configurations that each such field of a dataclass can hold, by name; empty where it has no such field."""
    return {f.name: f.metadata["variants"] for f in fields(settings) if "variants" in f.metadata}


def variant(name: Any, allowed: Mapping[str, Any], where: str) -> Any:
    """The configuration of a name.

    Raises:
        UserError: when there is none; `where` names the field.
    """
    if not isinstance(name, str) or name not in allowed:
        raise UserError(f"{where} is {name!r}: {suggestion(str(name), allowed)}")
    return allowed[name]


def experiment_with_variants(experiment: E, argv: Sequence[str]) -> tuple[E, list[str]]:
    """The experiment with the variants that a command line chooses, and the command line without these choices.

    Raises:
        UserError: for a name that a field does not know.
    """
    agent, rest = with_variants(experiment.agent, argv, "--agent")
    train, rest = with_variants(experiment.train, rest, "--train")
    return replace(experiment, agent=agent, train=train), rest


def with_variants(settings: Any, argv: Sequence[str], prefix: str) -> tuple[Any, list[str]]:
    """The settings with the variants that a command line chooses, and the command line without these choices.

    Raises:
        UserError: for a name that a field does not know.
    """
    rest = [part for word in argv for part in (word.split("=", 1) if word.startswith("--") else [word])]
    found = variants(settings) if is_dataclass(settings) else {}
    for field, allowed in found.items():
        flag = f"{prefix}.{field.replace('_', '-')}"
        while (at := next((i for i, word in enumerate(rest) if word.replace("_", "-") == flag), None)) is not None:
            if at + 1 == len(rest):
                raise UserError(f"{flag} needs a value: {', '.join(allowed)}")
            try:
                settings = replace(settings, **{field: variant(rest[at + 1], allowed, flag)})  # pyright: ignore[reportArgumentType]
            except ValueError as error:
                raise UserError(f"{flag} is {rest[at + 1]!r}: {error}") from error
            del rest[at : at + 2]
    return settings, rest if found else list(argv)
