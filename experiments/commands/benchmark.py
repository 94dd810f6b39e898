"""Measures speed beside the peers and the raw limit, in one interleaved run: metarl benchmark NAME [--json]."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Annotated

import tyro

from experiments.arguments import parse
from experiments.names import benchmark_names, describe, known


@dataclass(frozen=True)
class Arguments:
    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]  # such as simulation
    json: bool = False  # print one JSON object and nothing else


def main(argv: list[str]) -> None:
    names = [f"  {name}: {describe(f'experiments.benchmarks.{name}')}" for name in benchmark_names()]
    description = "\n\n".join([__doc__ or "", *names])
    arguments = parse(Arguments, argv, prog="metarl benchmark", description=description)
    name = known("benchmark", arguments.name, benchmark_names())
    importlib.import_module(f"experiments.benchmarks.{name}").main(json=arguments.json)
