"""List task families, agents, few-shot learners, experiments and trained agents, one line each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import tyro

from experiments.cli.arguments import parse
from experiments.experiment.names import described, in_columns

_KINDS = ("families", "agents", "learners", "experiments", "trained")


_What = Literal["all", "families", "agents", "learners", "experiments", "trained"]


@dataclass(frozen=True)
class Arguments:
    what: tyro.conf.Positional[_What] = "all"  # the kind to list


def main(argv: list[str]) -> None:
    arguments = parse(Arguments, argv, prog="metarl list", description=__doc__ or "")
    kinds = _KINDS if arguments.what == "all" else (arguments.what,)
    for kind in kinds:
        if len(kinds) > 1:
            print(f"\n{kind}" if kind != kinds[0] else kind)
        print("\n".join(in_columns(described(kind))))
