"""A plot of a run: the agent's adaptation within a trial, and its meta-training."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from experiments.cli.report import MEASURES
from metarl.evaluation import Evaluation, Measure
from metarl.run.directory import STEP_TAG, Run

_POINTS = 200  # of a line of training, at most
_OURS = "#1f5fa8"
_KNOWN = ("#2a8a4a", "#b5651d", "#7d4fa3", "#888888", "#c23b5a", "#5b7f8c")  # bounds, in their order


def plot_run(run: Run, evaluation: Evaluation, name: str | None = None) -> Path:
    """Draw <name>.png into the run, evaluation_<split>.png where it is left out; returns its path.

    Raises:
        RunError: when the disk refuses it.
    """
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_adaptation(left, evaluation)
    draw = _draw_learning if evaluation.measure.name == "return" else _draw_scores
    draw(right, run, evaluation.measure)
    figure.suptitle(f"{evaluation.family} · {evaluation.agent} · {run.path.name}", fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return run.save_picture(name or f"evaluation_{evaluation.split}", buffer.getvalue())


def _draw_adaptation(axes: Axes, evaluation: Evaluation) -> None:
    """Return by episode, or score by step, with its 95 % interval, and the bounds as lines."""
    measure = evaluation.measure
    episodes = range(measure.first, len(evaluation.points) + measure.first)
    marker = "o" if len(episodes) <= 20 else ""
    for (name, values), colour in zip(evaluation.bounds.items(), _KNOWN * 2, strict=False):
        axes.plot(episodes, values, color=colour, linewidth=1.4, linestyle="--", label=name.replace("_", "-"))
    means = [score.mean for score in evaluation.points]
    low = [score.ci95[0] for score in evaluation.points]
    high = [score.ci95[1] for score in evaluation.points]
    axes.fill_between(episodes, low, high, color=_OURS, alpha=0.2, linewidth=0)
    axes.plot(episodes, means, color=_OURS, linewidth=2.2, marker=marker, label=evaluation.agent)
    if len(episodes) <= 20:
        margin = [[m - lo for m, lo in zip(means, low, strict=True)], [h - m for m, h in zip(means, high, strict=True)]]
        axes.errorbar(episodes, means, margin, color=_OURS, fmt="none", capsize=3, linewidth=1.4)
    axes.set(
        xlabel="episode of the trial" if measure.adds_up else f"{measure.point}s of adaptation",
        ylabel=MEASURES.get(measure.name, measure.name),
        title=f"adaptation: {evaluation.num_tasks} {evaluation.split} tasks, 95 % interval",
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if not measure.higher_is_better:
        axes.set_yscale("log")
    _finish(axes)


def _draw_learning(axes: Axes, run: Run, measure: Measure) -> None:
    """Return at the first and at the last point of the adaptation curve against environment steps."""
    rows = run.progress()
    for source, style in (("meta_train", "-"), ("meta_test", "o")):
        tags = _end_tags(rows, f"{source}/{measure.tag}")
        for tag, colour in zip(tags, ("#d98032", _OURS)[-len(tags) :], strict=False):  # none before the first row
            logged = [row for row in rows if tag in row]
            steps, returns = [row[STEP_TAG] for row in logged], [row[tag] for row in logged]
            split = "training tasks" if source == "meta_train" else "test tasks"
            label = f"{measure.point} {tag.rsplit('_', 1)[1]}, {split}"
            alpha = 0.6 if style == "-" else 1.0
            axes.plot(steps, returns, style, color=colour, label=label, alpha=alpha, linewidth=1.2, markersize=5)
    axes.set(xlabel="environment steps", ylabel="return", title="meta-training")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if axes.lines:
        _finish(axes)


def _draw_scores(axes: Axes, run: Run, measure: Measure) -> None:
    """The score on training queries, smoothed, and before and after adaptation on test tasks, against examples seen."""
    rows, train_tag = run.progress(), f"train/query_{measure.name}"
    values = [row[train_tag] for row in rows if train_tag in row]
    width = max(1, len(values) // _POINTS)
    blocks = [values[start : start + width] for start in range(0, len(values), width)]
    steps = [row[STEP_TAG] for row in rows if train_tag in row][width - 1 :: width]
    means = [sum(block) / len(block) for block in blocks][: len(steps)]
    axes.plot(steps, means, color="#d98032", alpha=0.7, linewidth=1.2, label="training tasks, after adaptation")
    tags = {tag for row in rows for tag in row if tag.startswith(f"meta_test/{measure.tag}")}
    numbers = sorted(int(tag.rsplit("_", 1)[1]) for tag in tags)
    for number, colour in zip(dict.fromkeys(numbers[:2] + numbers[-1:]), _KNOWN, strict=False):
        tag = f"meta_test/{measure.tag}{number}"
        logged = [row for row in rows if tag in row]
        x, y = [row[STEP_TAG] for row in logged], [row[tag] for row in logged]
        axes.plot(x, y, "o-", color=colour, markersize=4, linewidth=1, label=f"test tasks, {number} {measure.point}s")
    axes.set(xlabel="examples", ylabel=MEASURES.get(measure.name, measure.name), title="meta-training")
    if not measure.higher_is_better:
        axes.set_yscale("log")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if axes.lines:
        _finish(axes)


def _end_tags(rows: list[dict[str, float]], prefix: str) -> list[str]:
    """The tags of the first and of the last point of a curve; one tag where it has one point."""
    points = sorted({int(tag.removeprefix(prefix)) for row in rows for tag in row if tag.startswith(prefix)})
    return [f"{prefix}{point}" for point in dict.fromkeys(points[:1] + points[-1:])]


def _finish(axes: Axes) -> None:
    axes.title.set_fontsize(10)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
