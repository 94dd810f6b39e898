"""Compare runs: metarl compare RUN|GLOB... [--by agent|family|FIELD] [--split test] [--out compare.png].

Runs that differ only in the seed are one group. Intervals are 95 % bootstrap intervals over seeds, within test tasks.
"""

from __future__ import annotations

import json as json_format
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments.cli.arguments import parse
from metarl.errors import UserError

_Runs = Annotated[
    tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN|GLOB", help_behavior_hint="(one or more)")
]


@dataclass(frozen=True)
class Arguments:
    runs: _Runs  # run directories, directories that contain runs, or patterns, e.g. 'runs/grid_navi/*/*'
    by: str | None = None  # the grouping: agent, family or a field, e.g. agent.gamma; None: everything that differs
    split: Literal["train", "val", "test", "ood"] = "test"  # the split of the evaluations to compare
    json: bool = False  # whether to print all numbers as one JSON object and nothing else
    csv: bool = False  # whether to print the table as CSV and nothing else
    latex: bool = False  # whether to print the table for LaTeX (booktabs) and nothing else
    markdown: bool = False  # whether to print the table as Markdown and nothing else
    out: Path | None = None  # the file of a figure: .png, .svg or .pdf


def main(argv: list[str]) -> None:
    if not argv:
        raise UserError("which runs? metarl compare RUN|GLOB...")
    arguments = parse(Arguments, argv, prog="metarl compare", description=__doc__ or "")
    formats = [name for name in ("json", "csv", "latex", "markdown") if getattr(arguments, name)]
    if len(formats) > 1:
        raise UserError(f"--{formats[0]} and --{formats[1]} are both given; leave one of them out")
    if not arguments.runs:
        raise UserError("which runs? metarl compare RUN|GLOB...")
    from experiments.workbench.comparing import tables
    from experiments.workbench.comparing.comparison import compare
    from experiments.workbench.comparing.figure import check_format, draw_comparison
    from experiments.workbench.comparing.runs import read_runs

    if arguments.out is not None:
        check_format(arguments.out)
    comparison = compare(read_runs(arguments.runs, arguments.split, arguments.by))
    if arguments.out is not None:
        draw_comparison(comparison, arguments.out)
    if not formats:
        tables.print_comparison(comparison)
        if arguments.out is not None:
            print(f"Figure: {arguments.out}")
    elif formats == ["json"]:
        print(json_format.dumps(comparison.as_json()))
    else:
        text = {"csv": tables.as_csv, "latex": tables.as_latex, "markdown": tables.as_markdown}[formats[0]]
        print(text(comparison), end="")
