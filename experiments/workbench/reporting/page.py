"""A report as one HTML file, which needs no network and runs no script but its own two: Plotly and the page's.

Everything that comes from a run is escaped by Jinja, or is JSON whose characters cannot end its element. A content
security policy, with the hashes of the two scripts, keeps the browser from running or fetching anything else.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.io.json import to_json_plotly
from plotly.offline import get_plotlyjs

from experiments.workbench.comparing import tables as comparison_tables
from experiments.workbench.comparing.comparison import Comparison, compare
from experiments.workbench.comparing.runs import paths_of, read_runs
from experiments.workbench.reporting.analysis import gaps, tails
from experiments.workbench.reporting.comparison_figures import comparison_charts
from experiments.workbench.reporting.figures import colour
from experiments.workbench.reporting.palette import variables
from experiments.workbench.reporting.runs import (
    MOST_MEDIA,
    Problem,
    ReportedRun,
    family_and_agent,
    read_run,
    state_text,
)
from experiments.workbench.reporting.sections import (
    Cell,
    Section,
    Table,
    as_rows,
    digits_of,
    interval,
    number,
    sections_of,
    words,
)
from metarl.errors import RunError, UserError
from metarl.run.files import reason, write_whole

_PAGE = Path(__file__).parent / "page"


def make_report(patterns: Sequence[str], out: Path) -> int:
    """Write the report of all runs that directories or patterns name; returns their number.

    Raises:
        UserError: when one of them is no run, or the file cannot be written.
    """
    paths = paths_of(patterns)
    if not paths:
        raise UserError(f"there is no run at {' '.join(patterns)}")
    if not out.parent.is_dir():
        raise UserError(f"cannot write {out}: there is no directory {out.parent}")
    runs = [read_run(path, MOST_MEDIA // len(paths)) for path in paths]
    try:
        write_whole(out, page_of(runs).encode(errors="replace"))
    except OSError as error:
        raise RunError(f"cannot write {out}: {reason(error)}") from error
    return len(runs)


def page_of(runs: Sequence[ReportedRun]) -> str:
    """The page of a report."""
    ids = [f"run-{index}" for index in range(1, len(runs) + 1)]
    single = len(runs) == 1
    sections = [] if single else [_overview(runs, ids), *_comparisons(runs)]
    environment = Environment(
        loader=FileSystemLoader(_PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    plotly, script = get_plotlyjs(), (_PAGE / "page.js").read_text("utf-8")
    names = count(1)
    return environment.get_template("report.html.jinja").render(
        title=_title(runs[0]) if single else f"{len(runs)} runs",
        subtitle=f"Report of MetaRL {version('metarl')}, made {time.strftime('%Y-%m-%d %H:%M')}",
        policy=_policy(plotly, script),
        light=variables("light"),
        dark=variables("dark"),
        css=Markup((_PAGE / "page.css").read_text("utf-8")),
        js=Markup(script),
        plotly=Markup(plotly),
        look=_embedded(_look()),
        sections=[_ready(section, names) for section in sections],
        runs=[
            {"id": name, "title": _title(run), "sections": [_ready(section, names) for section in sections_of(run)]}
            for name, run in zip(ids, runs, strict=True)
        ],
    )


def _title(run: ReportedRun) -> str:
    return f"{' · '.join(family_and_agent(run))} · {run.path}"


def _overview(runs: Sequence[ReportedRun], ids: Sequence[str]) -> Section:
    """A row for each run; the first column leads to it."""
    rows = []
    for run, name in zip(runs, ids, strict=True):
        family, agent = family_and_agent(run)
        cells = [Cell(str(run.path), str(run.path), name), *words(family, agent, str(run.config.get("seed", "")))]
        cells += [*words(state_text(run)), *_numbers(run)]
        rows.append([*cells, Cell(str(len(run.problems)), str(len(run.problems)))])
    columns = ["run", "family", "agent", "seed", "state", "first point", "last point", "95 % interval", "gain"]
    columns += ["CVaR 5 %", "train over test", "problems"]
    return Section("The runs", tables=[Table("Each run on its test tasks", columns, rows, frozenset({0, 1, 2, 4}))])


def _numbers(run: ReportedRun) -> list[Cell]:
    """First and last point, interval, gain, CVaR and gap of a run; empty where it has none."""
    if run.main is None:
        return [Cell("", "")] * 6
    one = run.main.evaluation
    digits, tail, gap = digits_of(one.measure), tails(one), gaps(run)
    return [
        number(one.points[0].mean, digits),
        number(one.points[-1].mean, digits),
        interval(*one.points[-1].ci95, digits),
        Cell("", "") if one.gain is None else number(one.gain.mean, digits),
        number(tail[0].estimate.value, digits) if tail else Cell("", ""),
        number(gap[0].estimate.value, digits) if gap and gap[0].better == "train" else Cell("", ""),
    ]


def _comparisons(runs: Sequence[ReportedRun]) -> list[Section]:
    """A comparison of the runs of each family that has several."""
    by_family: dict[str, list[ReportedRun]] = defaultdict(list)
    for run in runs:
        by_family[family_and_agent(run)[0]].append(run)
    return [_comparison(family, of_family) for family, of_family in by_family.items() if len(of_family) > 1]


def _comparison(family: str, runs: Sequence[ReportedRun]) -> Section:
    """The comparison of runs of one family on test tasks; why there is none where they cannot be compared."""
    title = f"Comparison on {family}"
    try:
        comparison = compare(read_runs([str(run.path) for run in runs], "test"))
    except UserError as error:
        return Section(title, problems=[Problem(f"there is none: {error}")])
    except (
        LookupError,
        TypeError,
        AttributeError,
        ValueError,
    ) as error:  # of files that a comparison takes to be whole
        return Section(title, problems=[Problem(f"there is none: a file of these runs is damaged ({error})")])
    return Section(
        title,
        [f"{comparison_tables.title_of(comparison)}.", *(f"Note: {note}." for note in comparison.notes)],
        charts=comparison_charts(comparison),
        tables=_comparison_tables(comparison),
    )


def _comparison_tables(comparison: Comparison) -> list[Table]:
    groups = as_rows(comparison_tables.columns_of(comparison), comparison_tables.cells_of(comparison))
    tables = [Table("Groups of runs that differ only in the seed", **groups)]
    if comparison.improvements:
        pairs = as_rows(comparison_tables.IMPROVEMENT_COLUMNS, comparison_tables.improvement_cells(comparison))
        tables.append(Table(comparison_tables.IMPROVEMENTS, **pairs, words=frozenset({0, 1})))
    return tables


def _ready(section: Section, names: Iterator[int]) -> dict[str, Any]:
    """A section as the template takes it: each chart with a name of its own and its JSON."""
    charts = [
        {**vars(chart), "id": f"chart-{next(names)}", "json": _embedded(chart.as_json())} for chart in section.charts
    ]
    media = [{**vars(one), "is_video": one.path.suffix == ".mp4"} for one in section.media]
    return {**vars(section), "charts": charts, "media": media}


def _embedded(content: dict[str, Any]) -> Markup:
    """JSON for an element of the page, which no string in it can end."""
    text = str(to_json_plotly(content))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _policy(*scripts: str) -> str:
    """The content security policy: these scripts, the page's style, and what is in the page itself."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts
    )
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; media-src data:"


def _look() -> dict[str, Any]:
    """The look of all charts, as a Plotly template in the colours of the page."""
    axis = {
        "gridcolor": colour("line"),
        "linecolor": colour("line"),
        "zerolinecolor": colour("line"),
        "tickcolor": colour("line"),
        "spikecolor": colour("muted"),
        "spikethickness": 1,
        "automargin": True,
        "title": {"standoff": 8},
    }
    layout = {
        "paper_bgcolor": "rgba(0, 0, 0, 0)",
        "plot_bgcolor": "rgba(0, 0, 0, 0)",
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": colour("text")},
        "xaxis": axis,
        "yaxis": axis,
        "margin": {"l": 50, "r": 12, "t": 8, "b": 40},
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0},
        "showlegend": True,
        "hovermode": "x unified",
        "hoverdistance": -1,  # wherever the pointer is, the nearest point
        "hoverlabel": {
            "bgcolor": colour("panel"),
            "bordercolor": colour("line"),
            "font": {"color": colour("text")},
            "namelength": -1,
        },
        "modebar": {"bgcolor": "rgba(0, 0, 0, 0)", "color": colour("muted"), "activecolor": colour("text")},
    }
    return {"layout": layout}
