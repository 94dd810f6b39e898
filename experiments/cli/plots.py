"""A plot of a run: the agent's adaptation within a trial, and its meta-training."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from experiments.cli.report import MEASURES
from metarl.evaluation import Evaluation, Measure
from metarl.run.directory import STEP_TAG, Run

_CURVE_POINTS = 200  # of a line of training, at most
_MARKED_POINTS = 20  # of an adaptation curve, whose points are marked one by one up to that many
_OURS = "#1f5fa8"
_POINT_COLOURS = ("#d98032", _OURS, "#7d4fa3", "#2a8a4a")  # of the points of adaptation whose learning is drawn
_KNOWN = ("#2a8a4a", "#b5651d", "#7d4fa3", "#888888", "#c23b5a", "#5b7f8c")  # bounds, in their order


def plot_run(run: Run, evaluation: Evaluation, name: str | None = None, *, of_run: bool = True) -> Path:
    """Draw <name>.png into the run, evaluation_<split>.png where it is left out; returns its path.

    of_run: whether the evaluation is on the run's own family, for which its saved baselines hold, on test tasks.

    Raises:
        RunError: when the disk refuses it.
    """
    known = along_curve(run.baselines(), evaluation) if of_run and evaluation.split == "test" else {}
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_adaptation(left, evaluation, known | evaluation.bounds)
    draw = _draw_learning if evaluation.measure.name == "return" else _draw_scores
    draw(right, run, evaluation.measure)
    figure.suptitle(f"{evaluation.family} · {evaluation.agent} · {run.path.name}", fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return run.save_picture(name or f"evaluation_{evaluation.split}", buffer.getvalue())


def along_curve(baselines: Mapping[str, list[float]], evaluation: Evaluation) -> dict[str, list[float]]:
    """Baselines by point of the adaptation curve, without those whose trials are shorter than it.

    Where a point is a block of many episodes, it is their mean: such as have no memory get no better.
    """
    num_points = len(evaluation.points)
    if not evaluation.measure.adds_up:
        return {name: [fmean(episodes)] * num_points for name, episodes in baselines.items() if episodes}
    return {name: episodes[:num_points] for name, episodes in baselines.items() if len(episodes) >= num_points}


def _draw_adaptation(axes: Axes, evaluation: Evaluation, bounds: Mapping[str, list[float]]) -> None:
    """Return by episode, or score by step, and the bounds, with 95 % intervals; points beyond training are hollow."""
    measure = evaluation.measure
    numbers = range(measure.first, len(evaluation.points) + measure.first)
    for (name, values), colour in zip(bounds.items(), _KNOWN * 2, strict=False):
        axes.plot(numbers, values, color=colour, linewidth=1.4, linestyle="--", label=name.replace("_", "-"))
        if name in evaluation.bound_intervals:
            low, high = zip(*evaluation.bound_intervals[name], strict=True)
            axes.fill_between(numbers, low, high, color=colour, alpha=0.12, linewidth=0)
    means = [score.mean for score in evaluation.points]
    low, high = ([score.ci95[end] for score in evaluation.points] for end in (0, 1))
    axes.fill_between(numbers, low, high, color=_OURS, alpha=0.2, linewidth=0)
    marker = "o" if len(numbers) <= _MARKED_POINTS else ""
    trained = min(evaluation.trained_points or len(numbers), len(numbers))
    style: dict[str, Any] = {"color": _OURS, "linewidth": 2.2, "marker": marker}
    axes.plot(numbers[:trained], means[:trained], label=evaluation.agent, **style)
    if trained < len(numbers):
        beyond = slice(trained - 1, None)  # from the last trained point, which keeps its own marker
        hollow = {"linestyle": ":", "markerfacecolor": "white", "markevery": slice(1, None)}
        axes.plot(numbers[beyond], means[beyond], label="beyond training", **style | hollow)
    if len(numbers) <= _MARKED_POINTS:
        margin = [[m - lo for m, lo in zip(means, low, strict=True)], [h - m for m, h in zip(means, high, strict=True)]]
        axes.errorbar(numbers, means, margin, color=_OURS, fmt="none", capsize=3, linewidth=1.4)
    axes.set(
        xlabel="episode of the trial" if measure.adds_up else f"{measure.point}s of adaptation",
        ylabel=MEASURES.get(measure.name, measure.name),
        title=f"adaptation: {evaluation.num_tasks} {evaluation.split} tasks, 95 % intervals of the means over them",
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if not measure.higher_is_better:
        axes.set_yscale("log")
    _finish(axes)


def _draw_learning(axes: Axes, run: Run, measure: Measure) -> None:
    """Return at the first and at the last point of the adaptation curve against environment steps.

    A point has one colour, on training and on test tasks. Where the curve goes on beyond training, test tasks have both
    the last point of training and the last of all.
    """
    rows = run.progress()
    trained, tested = (logged_in(rows, f"{source}/{measure.tag}") for source in ("meta_train", "meta_test"))
    shown = {
        "meta_train": ends(trained),
        "meta_test": sorted({*ends(tested), *(point for point in ends(trained) if point in tested)}),
    }
    colours = dict(zip(sorted({*shown["meta_train"], *shown["meta_test"]}), _POINT_COLOURS, strict=False))
    for source, style, split in (("meta_train", "-", "training tasks"), ("meta_test", "o", "test tasks")):
        for point in shown[source]:
            tag = f"{source}/{measure.tag}{point}"
            logged = [row for row in rows if tag in row]
            steps, returns = [row[STEP_TAG] for row in logged], [row[tag] for row in logged]
            alpha = 0.6 if style == "-" else 1.0
            look: dict[str, Any] = {"color": colours[point], "alpha": alpha, "linewidth": 1.2, "markersize": 5}
            axes.plot(steps, returns, style, label=f"{measure.point} {point}, {split}", **look)
    axes.set(xlabel="environment steps", ylabel="return", title="meta-training")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if axes.lines:
        _finish(axes)


def _draw_scores(axes: Axes, run: Run, measure: Measure) -> None:
    """The score on training queries, smoothed, and before and after adaptation on test tasks, against examples seen."""
    rows, train_tag = run.progress(), f"train/query_{measure.name}"
    values = [row[train_tag] for row in rows if train_tag in row]
    width = max(1, len(values) // _CURVE_POINTS)
    blocks = [values[start : start + width] for start in range(0, len(values), width)]
    steps = [row[STEP_TAG] for row in rows if train_tag in row][width - 1 :: width]
    means = [sum(block) / len(block) for block in blocks][: len(steps)]
    axes.plot(steps, means, color="#888888", alpha=0.7, linewidth=1.2, label="training tasks, after adaptation")
    points = logged_in(rows, f"meta_test/{measure.tag}")
    for point, colour in zip(dict.fromkeys(points[:2] + points[-1:]), _POINT_COLOURS, strict=False):
        tag = f"meta_test/{measure.tag}{point}"
        logged = [row for row in rows if tag in row]
        x, y = [row[STEP_TAG] for row in logged], [row[tag] for row in logged]
        label = f"test tasks, {point} {measure.point}{'' if point == 1 else 's'}"
        axes.plot(x, y, "o-", color=colour, markersize=4, linewidth=1, label=label)
    axes.set(xlabel="examples", ylabel=MEASURES.get(measure.name, measure.name), title="meta-training")
    if not measure.higher_is_better:
        axes.set_yscale("log")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if axes.lines:
        _finish(axes)


def logged_in(rows: list[dict[str, float]], prefix: str) -> list[int]:
    """The points of a curve that are logged under tags of this prefix, in order."""
    return sorted({int(tag.removeprefix(prefix)) for row in rows for tag in row if tag.startswith(prefix)})


def ends(points: list[int]) -> list[int]:
    """The first and the last; one where it has one."""
    return list(dict.fromkeys(points[:1] + points[-1:]))


def _finish(axes: Axes) -> None:
    axes.title.set_fontsize(10)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
