"""A comparison as a table: for the terminal, as CSV, as Markdown and as LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from rich.console import Console

from experiments.cli.tables import MEASURES, print_table
from experiments.workbench.comparing.comparison import Comparison, Estimate, Row

_LATEX = str.maketrans({c: rf"\{c}" for c in "&%$#_{}"} | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"})

IMPROVEMENTS = "Probability of improvement on a test task, and mean difference"
IMPROVEMENT_COLUMNS = ("agent", "over", "probability", "95 % interval", "difference", "95 %, paired by task")


def print_comparison(comparison: Comparison, console: Console | None = None) -> None:
    """Print the table, the probabilities of improvement and what must be known to judge them."""
    console = Console() if console is None else console
    print_table(title_of(comparison), columns_of(comparison), cells_of(comparison), console, text=("agent",))
    if comparison.improvements:
        rows = improvement_cells(comparison)
        print_table(IMPROVEMENTS, IMPROVEMENT_COLUMNS, rows, console, text=IMPROVEMENT_COLUMNS[:2])
    for note in comparison.notes:
        console.print(f"Note: {note}", highlight=False, soft_wrap=not console.is_terminal, markup=False)


def improvement_cells(comparison: Comparison) -> list[tuple[str, ...]]:
    """The rows of the table of improvements as text."""
    return [
        (one.group, one.over, *_probability(one.probability), _number(one.difference.value), _interval(one.difference))
        for one in comparison.improvements
    ]


def title_of(comparison: Comparison) -> str:
    name = comparison.measure["name"]
    what = MEASURES.get(name, name)
    return f"{comparison.family}: interquartile mean of {what} on {comparison.num_tasks} {comparison.split} tasks"


def columns_of(comparison: Comparison) -> tuple[str, ...]:
    point, places = comparison.measure["point"], comparison.rows[0].adaptation.places
    ends = (f"{point} {places[0]:.0f}", f"{point} {places[-1]:.0f}")
    if comparison.by_experience:
        ends = ("first point", "last point")
    return (
        "agent",
        "seeds",
        "missing",
        *dict.fromkeys(ends),
        "95 % interval",
        "95 %, whole seeds",
        "gain",
        "95 % interval of gain",
    )


def cells_of(comparison: Comparison) -> list[tuple[str, ...]]:
    """The rows of the table as text, in the order of `columns_of`."""
    return [_cells(row) for row in comparison.rows]


def as_markdown(comparison: Comparison) -> str:
    columns = columns_of(comparison)
    rows = [[cell.replace("|", r"\|") for cell in row] for row in cells_of(comparison)]
    lines = [columns, ["---" if column == "agent" else "---:" for column in columns], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def as_csv(comparison: Comparison) -> str:
    """Numbers with all their digits; an interval in two columns."""
    point = comparison.measure["point"]
    first, last = (f"{point}_{comparison.rows[0].adaptation.places[index]:.0f}" for index in (0, -1))
    if comparison.by_experience:
        first, last = "first_point", "last_point"
    header = ["agent", "seeds", "missing", *_named(first), *(_named(last) if last != first else ())]
    header += ["whole_seeds_low", "whole_seeds_high", *_named("gain")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in comparison.rows:
        numbers = [*row.first, *(row.last if last != first else ()), *row.over_seeds[1:], *(row.gain or (None,) * 3)]
        writer.writerow([row.label, len(row.seeds), " ".join(map(str, row.missing)), *numbers])
    return text.getvalue()


def as_latex(comparison: Comparison) -> str:
    """A booktabs table; the group with the best score at the last point is in bold."""
    columns = columns_of(comparison)
    sign = 1 if comparison.measure["higher_is_better"] else -1
    best = max(comparison.rows, key=lambda row: sign * row.last.value)
    lines = [
        rf"% {title_of(comparison)}",
        rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}",
        r"\toprule",
        rf"{' & '.join(column.translate(_LATEX) for column in columns)} \\",
        r"\midrule",
    ]
    for row, cells in zip(comparison.rows, cells_of(comparison), strict=True):
        texts = [cell.translate(_LATEX) for cell in cells]
        texts[0] = rf"\textbf{{{texts[0]}}}" if row is best else texts[0]
        lines.append(rf"{' & '.join(texts)} \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _cells(row: Row) -> tuple[str, ...]:
    ends = (row.first, row.last) if row.gain is not None else (row.last,)
    return (
        row.label,
        str(len(row.seeds)),
        ", ".join(map(str, row.missing)),
        *(_number(end.value) for end in ends),
        _interval(row.last),
        _interval(row.over_seeds),
        "" if row.gain is None else _number(row.gain.value),
        "" if row.gain is None else _interval(row.gain),
    )


def _named(name: str) -> Sequence[str]:
    return (name, f"{name}_low", f"{name}_high")


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return "one seed"
    return f"{_number(estimate.low)} to {_number(estimate.high)}"


def _probability(estimate: Estimate) -> tuple[str, str]:
    return f"{estimate.value:.3f}", _interval(estimate)


def _number(value: float) -> str:
    """With four significant digits, and without an exponent."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 1000 else f"{value:.{1 if size >= 100 else 2 if size >= 10 else 3}f}"
