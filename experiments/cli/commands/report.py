"""Write runs as one HTML page to read or to send: metarl report RUN|GLOB... [--out report.html].

The page opens from disk and needs no network. It shows what the runs' files hold: nothing is trained or evaluated, and
no code of a run is run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from experiments.cli.arguments import parse
from metarl.errors import UserError

_Runs = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN|GLOB")]


@dataclass(frozen=True)
class Arguments:
    runs: _Runs  # run directories, directories that contain runs, or patterns, e.g. 'runs/grid_navi/*/*'
    out: Path = Path("report.html")  # the file to write; must end in .html


def main(argv: list[str]) -> None:
    if not argv:
        raise UserError("which runs? metarl report RUN|GLOB...")
    arguments = parse(Arguments, argv, prog="metarl report", description=__doc__ or "")
    if not arguments.runs:
        raise UserError("which runs? metarl report RUN|GLOB...")
    if arguments.out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out is {str(arguments.out)!r}; must end in .html")
    try:
        import jinja2  # noqa: F401
        import plotly  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"a report needs {error.name}, which is not installed: pip install 'metarl[workbench]'"
        ) from error
    from experiments.workbench.reporting.page import make_report

    number = make_report(arguments.runs, arguments.out)
    size = arguments.out.stat().st_size / 1e6
    print(f"Report: {arguments.out} ({number} run{'' if number == 1 else 's'}, {size:.1f} MB)")
