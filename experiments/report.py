"""The adaptation curve as a table, beside what is known about its tasks."""

from __future__ import annotations

from statistics import fmean

from rich.console import Console
from rich.table import Table

from experiments.experiment import Expected
from metarl.evaluation import Evaluation, Score
from metarl.trainer import logged_episodes

_FILE_WIDTH = 140  # columns, where no terminal sets a limit


def print_evaluation(evaluation: Evaluation, expected: Expected | None = None) -> None:
    """Print the returns episode by episode and over the trial; bounds and the family's metrics (means) beside them."""
    title = f"{evaluation.family}, {evaluation.agent}: return on {evaluation.num_tasks} {evaluation.split} tasks"
    table = Table(title=title, title_justify="left")
    for column in ("episode", "mean", "IQM", "95 % interval", *map(_words, (*evaluation.bounds, *evaluation.metrics))):
        table.add_column(column, justify="right", no_wrap=True)
    for episode in logged_episodes(len(evaluation.episodes)):
        known = [values[episode - 1] for values in (*evaluation.bounds.values(), *evaluation.metrics.values())]
        table.add_row(str(episode), *_cells(evaluation.episodes[episode - 1], known))
    if len(evaluation.episodes) > 1:
        table.add_section()
        known = [sum(values) for values in evaluation.bounds.values()]
        known += [fmean(values) for values in evaluation.metrics.values()]
        table.add_row("all", *_cells(evaluation.total, known))
    console = Console()
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    console.print(table)
    if expected is not None:
        console.print(_verdict(evaluation, expected), highlight=False, soft_wrap=True)


def _cells(score: Score, known: list[float]) -> list[str]:
    low, high = score.ci95
    return [_number(score.mean), _number(score.iqm), f"{_number(low)} to {_number(high)}", *map(_number, known)]


def _number(value: float) -> str:
    size = abs(value)
    return f"{value:,.0f}" if size >= 1000 else f"{value:.1f}" if size >= 100 else f"{value:.2f}"


def _words(name: str) -> str:
    return name.replace("_", "-")


def _verdict(evaluation: Evaluation, expected: Expected) -> str:
    if expected.episode is None:
        what, reached = "over the trial", evaluation.total.mean
    elif expected.episode <= len(evaluation.episodes):
        what, reached = f"in episode {expected.episode}", evaluation.episodes[expected.episode - 1].mean
    else:
        return f"Expected {expected.at_least:g} in episode {expected.episode}, which this trial does not have."
    met = "reached" if reached >= expected.at_least else "NOT reached"
    return f"Expected {what}: at least {expected.at_least:g} ({expected.source}); {met}: {_number(reached)}."
