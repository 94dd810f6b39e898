"""A sensitivity grid as a table and as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console

from experiments.cli.tables import number_text, print_table
from experiments.experiment.sensitivity import Axis, Cell

EFFORT = ("action_rate", "saturation", "power")
_UNITS = {"power": "power (W)"}
_COLOURS = ("#1f5fa8", "#d98032")  # of the last point of the adaptation curve, and of the first


def print_grid(axes: Sequence[Axis], cells: Sequence[Cell], console: Console | None = None) -> None:
    """Print a row for each point of the grid: the means of the curve, the last one's interval, and the effort."""
    evaluation = cells[0].evaluation
    measure = evaluation.measure
    points = [f"{measure.point} {index + measure.first}" for index in range(len(evaluation.points))]
    effort = [name for name in EFFORT if name in evaluation.metrics]
    columns = [*(axis.label for axis in axes), *points, "95 % interval", *(name.replace("_", " ") for name in effort)]
    rows = []
    for cell in cells:
        low, high = cell.evaluation.points[-1].ci95
        means = [number_text(point.mean, 1) for point in cell.evaluation.points]
        last = [_short(cell.evaluation.metrics[name][-1]) for name in effort]
        interval = f"{number_text(low, 1)} to {number_text(high, 1)}"
        rows.append([*(str(value) for value in cell.settings.values()), *means, interval, *last])
    what = f"{evaluation.family}, {evaluation.agent}: {measure.name} on {evaluation.num_tasks} {evaluation.split} tasks"
    print_table(what, columns, rows, Console() if console is None else console, num_apart=0)


def draw_grid(axes: Sequence[Axis], cells: Sequence[Cell]) -> bytes:
    """A PNG: the score and the effort along the first axis, or over both axes."""
    evaluation = cells[0].evaluation
    effort = [name for name in EFFORT if name in evaluation.metrics]
    figure = Figure(figsize=(4.2 * (1 + len(effort)), 3.8), layout="constrained")
    panels: list[Axes] = list(np.atleast_1d(figure.subplots(1, 1 + len(effort))))
    score = f"{evaluation.measure.name} of the last {evaluation.measure.point}"
    values = {score: [cell.evaluation.points[-1].mean for cell in cells]}
    values |= {
        _UNITS.get(name, name.replace("_", " ")): [cell.evaluation.metrics[name][-1] for cell in cells]
        for name in effort
    }
    for panel, (title, column) in zip(panels, values.items(), strict=True):
        panel.set_title(title, fontsize=10)
        if len(axes) == 1:
            _draw_line(panel, axes[0], column, cells if title == score else None)
        else:
            _draw_map(figure, panel, axes, column)
    figure.suptitle(f"{evaluation.agent} on {evaluation.num_tasks} {evaluation.split} tasks of {evaluation.family}")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _draw_line(panel: Axes, axis: Axis, column: Sequence[float], cells: Sequence[Cell] | None) -> None:
    """Values along an axis, or bars by name; with cells, the intervals too, and the first point of the curves."""
    places, is_named = np.arange(len(axis.values)), any(isinstance(value, str) for value in axis.values)
    style, apart = ("o", 0.08) if is_named else ("o-", 0.0)  # names have no order to draw a line along
    if cells is not None:
        for index, colour, side in ((-1, _COLOURS[0], 1), (0, _COLOURS[1], -1))[
            : min(2, len(cells[0].evaluation.points))
        ]:
            points = [cell.evaluation.points[index] for cell in cells]
            means = [point.mean for point in points]
            ends = [
                [mean - p.ci95[0] for mean, p in zip(means, points, strict=True)],
                [p.ci95[1] - p.mean for p in points],
            ]
            at, label = places + side * apart, ("first", "last")[index]
            panel.errorbar(at, means, yerr=ends, fmt=style, capsize=3, color=colour, label=label)
        if len(cells[0].evaluation.points) > 1:
            panel.legend(title=cells[0].evaluation.measure.point, frameon=False)
    elif is_named:
        panel.bar_label(panel.bar(places, column, width=0.6, color=_COLOURS[0]), [_short(value) for value in column])
        panel.margins(y=0.15)
    else:
        panel.plot(places, column, style, color=_COLOURS[0])
    if is_named:
        panel.set_xlim(-0.6, len(places) - 0.4)
    panel.set_xticks(list(places), [str(value) for value in axis.values])
    panel.set_xlabel(axis.label)


def _draw_map(figure: Figure, panel: Axes, axes: Sequence[Axis], column: Sequence[float]) -> None:
    """Values over two axes, the first downwards."""
    grid = np.array(column).reshape(len(axes[0].values), len(axes[1].values))
    image = panel.imshow(grid, cmap="viridis", aspect="auto")
    for (row, place), value in np.ndenumerate(grid):
        dark = float(image.norm(value)) < 0.6  # pyright: ignore[reportArgumentType], a number
        panel.text(place, row, _short(value), ha="center", va="center", color="white" if dark else "black")
    panel.set_yticks(range(grid.shape[0]), [str(value) for value in axes[0].values])
    panel.set_xticks(range(grid.shape[1]), [str(value) for value in axes[1].values])
    panel.set_ylabel(axes[0].label)
    panel.set_xlabel(axes[1].label)
    figure.colorbar(image, ax=panel, shrink=0.8)
