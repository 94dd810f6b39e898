"""The recipe of a trial: a Python file that `metarl train` takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.workbench.sweeping.space import Space, has_field, value_at, words_by_field

_TEMPLATE = '''"""{title}

{how}
"""

from experiments import load
from experiments.experiment.overrides import with_overrides

experiment = load({name})
'''


def recipe_of(space: Space, words: Sequence[str], title: str, how: str) -> str:
    """The text of the recipe with these words beside the fixed ones of a sweep.

    A field that holds one of several configurations is set before the fields of that configuration.
    """
    name = str(Path(space.experiment).resolve()) if space.experiment.endswith(".py") else space.experiment
    settings = space.settings(words)
    first: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for field, given in words_by_field((*space.fixed, *words)).items():
        if field in space.variant_fields:
            first[field] = given[0]
            continue
        owner, _, last = field.rpartition(".")
        if not has_field(settings, field):  # --agent.no-normalise-obs
            field = ".".join(filter(None, (owner, last.removeprefix("no_"))))
        others[field] = value_at(settings, field)
    text = _TEMPLATE.format(title=_plain(title), how=_plain(how), name=json.dumps(name))
    return text + "".join(_override(values) for values in (first, others) if values)


def _override(values: Mapping[str, Any]) -> str:
    def literal(value: Any) -> str:
        return json.dumps(value) if isinstance(value, str) else repr(value)

    lines = "".join(f"        {json.dumps(name)}: {literal(value)},\n" for name, value in values.items())
    return f"experiment = with_overrides(\n    experiment,\n    {{\n{lines}    }},\n)\n"


def _plain(text: str) -> str:
    """One line that cannot end a docstring."""
    return " ".join(text.split()).replace("\\", "/").replace('"', "'")
