"""A comparison as one figure: adaptation, learning, performance profiles and probabilities of improvement."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from experiments.cli.tables import MEASURES
from experiments.workbench.comparing.comparison import Comparison, Curve, Estimate
from experiments.workbench.comparing.tables import title_of
from metarl.errors import RunError, UserError

FORMATS = (".png", ".svg", ".pdf")
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")  # Okabe and Ito's
_STYLES = ("-", "--", ":", "-.")  # one for each round of the colours
_LEGEND_WIDTH = 180  # characters of all entries in a row
_MOST_PAIRS = 15  # of groups whose probability of improvement is drawn


def check_format(path: Path) -> None:
    """Check the suffix of a file name for figures.

    Raises:
        UserError: when it is not a supported format.
    """
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"--out is {str(path)!r}; must end in {', '.join(FORMATS)}")


def draw_comparison(comparison: Comparison, path: Path) -> None:
    """Draw the figure.

    Raises:
        RunError: when the disk refuses it.
    """
    name: str = comparison.measure["name"]
    what = MEASURES.get(name, name)
    pairs = min(len(comparison.improvements), _MOST_PAIRS)
    figure = Figure(figsize=(15, 8.2 + 0.25 * max(0, pairs - 8)), layout="constrained")
    panels = figure.subplots(2, 3)
    adaptation, samples, seconds, profile, improvement, last = panels.flat
    for row, (colour, style) in zip(comparison.rows, _looks(len(comparison.rows)), strict=True):
        number = "one seed" if len(row.seeds) == 1 else f"{len(row.seeds)} seeds"
        _draw(adaptation, row.adaptation, colour, style, f"{row.label} ({number})")
        _draw(profile, row.profile, colour, style)
        for axes, axis in ((samples, "samples"), (seconds, "seconds")):
            if axis in row.learning:
                _draw(axes, row.learning[axis], colour, style)
    point = "episode" if comparison.measure["point"] == "episode" else f"{comparison.measure['point']}s of adaptation"
    if comparison.by_experience:
        point = "episodes of experience in the task"
    adaptation.xaxis.set_major_locator(MaxNLocator(integer=True))
    profile.xaxis.set_major_locator(MaxNLocator(6))
    for axes, title, x, y in (
        (adaptation, "adaptation", point, what),
        (samples, "learning, by samples", "samples", f"{what} after adaptation"),
        (seconds, "learning, by time", "seconds of training", f"{what} after adaptation"),
        (profile, "performance profile", f"{what} after adaptation", "fraction of runs and tasks above"),
    ):
        axes.set(xlabel=x, ylabel=y)
        _finish(axes, title)
    if not comparison.measure["higher_is_better"]:  # an error
        for axes in (adaptation, samples, seconds):
            axes.set_yscale("log")
    for axes in (samples, seconds):
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        if not axes.lines:
            _say(axes, "not logged by all runs")
    _draw_last(last, comparison, what)
    _draw_improvements(improvement, comparison)
    handles, labels = adaptation.get_legend_handles_labels()
    columns = max(1, min(len(labels), 4, _LEGEND_WIDTH // max(map(len, labels))))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    figure.suptitle(f"{title_of(comparison)}; bands: 95 % bootstrap intervals", fontsize=11)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from error


def _looks(number: int) -> list[tuple[str, str]]:
    return [(_COLOURS[n % len(_COLOURS)], _STYLES[n // len(_COLOURS) % len(_STYLES)]) for n in range(number)]


def _draw(axes: Axes, curve: Curve, colour: str, style: str, label: str | None = None) -> None:
    values = [estimate.value for estimate in curve.estimates]
    marker = "o" if len(values) <= 20 else ""
    axes.plot(curve.places, values, style, color=colour, linewidth=1.8, marker=marker, markersize=4, label=label)
    bounds = [(estimate.low, estimate.high) for estimate in curve.estimates]
    low = [low for low, high in bounds if low is not None and high is not None]
    high = [high for low, high in bounds if low is not None and high is not None]
    if len(low) == len(values) > 1:
        axes.fill_between(curve.places, low, high, color=colour, alpha=0.18, linewidth=0)


def _draw_last(axes: Axes, comparison: Comparison, what: str) -> None:
    """Each group at the last point: its interquartile mean, and its intervals within tasks and over whole seeds."""
    for place, (row, (colour, _)) in enumerate(zip(comparison.rows, _looks(len(comparison.rows)), strict=True)):
        for interval, width, alpha in ((row.over_seeds, 1.2, 1.0), (row.last, 6.0, 0.45)):
            _bar(axes, interval, place, colour, width, alpha)
        axes.plot([row.last.value], [place], "o", color=colour, markersize=5)
    _name_rows(axes, [row.label for row in comparison.rows])
    axes.set(xlabel=f"{what} after adaptation")
    _finish(axes, "last point (thin: interval of whole seeds)")


def _draw_improvements(axes: Axes, comparison: Comparison) -> None:
    pairs = comparison.improvements[:_MOST_PAIRS]
    for place, pair in enumerate(pairs):
        _bar(axes, pair.probability, place, _COLOURS[0], 6.0, 0.45)
        axes.plot([pair.probability.value], [place], "o", color=_COLOURS[0], markersize=5)
    axes.axvline(0.5, color="#888888", linewidth=1)
    _name_rows(axes, [f"{pair.group} > {pair.over}" for pair in pairs])
    axes.set(xlim=(-0.02, 1.02), xlabel="probability")
    more = len(comparison.improvements) - len(pairs)
    _finish(axes, f"probability of improvement{f' ({more} more pairs not shown)' if more else ''}")
    if not pairs:
        _say(axes, "needs two groups on the same tasks")


def _bar(axes: Axes, interval: Estimate, place: int, colour: str, width: float, alpha: float) -> None:
    if interval.low is not None and interval.high is not None:
        axes.hlines(place, interval.low, interval.high, color=colour, linewidth=width, alpha=alpha)


def _name_rows(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), [name if len(name) <= 40 else f"{name[:39]}…" for name in names], fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", transform=axes.transAxes, color="#666666")


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
