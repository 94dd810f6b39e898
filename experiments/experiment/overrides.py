"""Other values for some fields of an experiment, by dotted names such as "agent.learning_rate"."""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from experiments.experiment.config_json import class_path, merged, names_now
from experiments.experiment.definition import Experiment
from experiments.experiment.names import suggestion
from experiments.experiment.variants import variant, variants
from metarl.errors import UserError


class _Parts(dict[str, Any]):
    """New values by field; a part of several fields is another of these."""


def with_overrides(experiment: Experiment[Any, Any], overrides: Mapping[str, Any]) -> Experiment[Any, Any]:
    """The experiment with other values for the fields that `overrides` names, all of them set together.

    A whole part can be given too: {"family": GridNavi(size=7)}.

    Raises:
        UserError: for an unknown field or a value that it does not take; names it.
    """
    parts = _Parts()
    for name, value in overrides.items():
        *path, last = name.split(".")
        inside = parts
        for part in path:
            inside = inside.setdefault(part, _Parts())
            if not isinstance(inside, _Parts):
                raise UserError(f"overrides give both {part} and {name}; leave one of them out")
        if last in inside:
            raise UserError(f"overrides give both {name} and some of its fields; leave one of them out")
        inside[last] = value
    return _changed(experiment, parts, "")


def _changed(value: Any, parts: _Parts, where: str) -> Any:
    is_mapping = isinstance(value, Mapping)
    if not is_mapping and not is_dataclass(value):
        raise UserError(f"{where} is {value!r}, which has no fields; {where}.{next(iter(parts))} cannot be set")
    present = dict(value) if is_mapping else {f.name: getattr(value, f.name) for f in fields(value) if f.init}
    hints = {} if is_mapping else annotations_of(type(value))
    named = {} if is_mapping else variants(value)
    new: dict[str, Any] = {}
    for name, given in parts.items():
        path = f"{where}.{name}" if where else name
        if name not in present:
            now = [f"{where}.{place}" for place in names_now(class_path(value), name)]
            raise UserError(
                f"{path} is not a field: {'it is now ' + ', '.join(now) if now else suggestion(name, present)}"
            )
        if isinstance(given, _Parts):
            new[name] = _changed(present[name], given, path)
        else:
            new[name] = _checked(given, hints.get(name, Any), present[name], path, named.get(name, {}))
    if is_mapping:
        return {**value, **new}
    try:
        return replace(value, **new)  # pyright: ignore[reportArgumentType], an instance
    except (ValueError, TypeError) as error:
        raise UserError(f"{where}: {error}" if where else str(error)) from error


def _checked(given: Any, hint: Any, present: Any, where: str, allowed: Mapping[str, Any]) -> Any:
    """A field's new value, of the type that its annotation asks for, lists standing for tuples as in JSON.

    allowed: the configurations that the field can hold, by name, where it has several.
    """
    if is_dataclass(given) or callable(given):
        return given
    if is_dataclass(present):
        if allowed:
            return variant(given, allowed, where)
        raise UserError(f"{where} is {given!r}; must be an object such as {type(present).__name__}(...)")
    if hasattr(given, "item") and getattr(given, "ndim", None) == 0:  # a number of numpy's or torch's
        given = given.item()
    try:
        text = json.dumps(str(given) if isinstance(given, Path) else given)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where} is {given!r}, which is not a plain value: {error}") from error
    except RecursionError as error:
        raise UserError(f"{where} is a value that is nested too deeply") from error
    try:
        return TypeAdapter(hint).validate_json(text, strict=True)
    except ValidationError as error:
        raise UserError(f"{where} is {given!r}: {error.errors()[0]['msg']}") from error
    except PydanticUserError:  # an annotation that says too little, such as a protocol's
        return merged(present, json.loads(text), where)


def annotations_of(cls: type[Any]) -> dict[str, Any]:
    """The annotations of a class; empty where one of them names what is only known to type checkers."""
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {}
