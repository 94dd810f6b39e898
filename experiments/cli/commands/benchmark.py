"""Compare speed with other libraries and the raw limit: metarl benchmark NAME [--json] [--bodies B ...]."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from typing import Annotated

import tyro

from experiments.cli.arguments import parse
from experiments.experiment.names import benchmark_names, describe, known
from metarl.errors import UserError


@dataclass(frozen=True)
class Arguments:
    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]  # the benchmark to run
    json: bool = False  # whether to print one JSON object and nothing else
    bodies: tuple[str, ...] = ()  # the bodies that simulation measures, e.g. half_cheetah ant; none given: all


def main(argv: list[str]) -> None:
    names = [f"  {name}: {describe(f'experiments.benchmarks.{name}')}" for name in benchmark_names()]
    description = "\n\n".join([__doc__ or "", *names])
    arguments = parse(Arguments, argv, prog="metarl benchmark", description=description)
    name = known("benchmark", arguments.name, benchmark_names())
    benchmark = importlib.import_module(f"experiments.benchmarks.{name}").main
    options = {"bodies": arguments.bodies} if arguments.bodies else {}
    if options and "bodies" not in inspect.signature(benchmark).parameters:
        raise UserError(f"--bodies is {' '.join(arguments.bodies)!r}; the benchmark {name} has none to choose from")
    try:
        benchmark(json=arguments.json, **options)
    except ValueError as error:
        raise UserError(str(error)) from error
