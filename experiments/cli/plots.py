"""A plot of a run: the agent's adaptation within a trial, and its meta-training."""

from __future__ import annotations

import io
import shlex
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from experiments.cli.tables import MEASURES
from experiments.experiment.definition import Expected
from metarl.evaluation import Evaluation, Measure
from metarl.run.directory import STEP_TAG, Run

_CURVE_POINTS = 200  # of a line of training, at most
_MARKED_POINTS = 20  # of an adaptation curve, whose points are marked one by one up to that many
# One meaning a colour: the agent and the last point of its curve, the first point, each known bound by its name.
_OURS = "#1f5fa8"
_FIRST = "#d98032"
_POINT_COLOURS = (_FIRST, _OURS, "#c23b8a", "#12a3d8")  # of the points of adaptation whose learning is drawn
_KNOWN = {"oracle": "#2a8a4a", "bayes_optimal": "#0e7c7b", "random": "#888888"}
_OTHERS = ("#7d4fa3", "#8a6d3b", "#5b7f8c", "#a04040", "#444444")  # of further bounds, such as saved baselines
_TESTED = ("meta_test", "test tasks")  # the prefix of tags, and its words
_TITLE_WIDTH = 150  # characters


def plot_run(
    run: Run,
    evaluation: Evaluation,
    name: str | None = None,
    *,
    of_run: bool = True,
    expected: Expected | None = None,
) -> Path:
    """Draw <name>.png into the run, evaluation_<split>.png where it is left out; returns its path.

    of_run: whether the evaluation is on the run's own family, for which its saved baselines hold, on test tasks, and
    so does what is expected of the recipe.

    Raises:
        RunError: when the disk refuses it.
    """
    is_plain = of_run and evaluation.split == "test"
    known = along_curve(run.baselines(), evaluation) if is_plain else {}
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_adaptation(left, evaluation, known | evaluation.bounds, expected if is_plain else None)
    draw = _draw_learning if evaluation.measure.name == "return" else _draw_scores
    draw(right, run, evaluation.measure)
    figure.suptitle(_title(run, evaluation), fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return run.save_picture(name or f"evaluation_{evaluation.split}", buffer.getvalue())


def sampled_parameters(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The numbers of a task whose draws by a sampler of training tasks were logged, in the log's order."""
    tags = dict.fromkeys(tag for row in rows for tag in row if tag.startswith("sampler/") and tag.endswith("/p50"))
    return [tag.removeprefix("sampler/").removesuffix("/p50") for tag in tags]


def plot_sampled_tasks(run: Run) -> Path | None:
    """Draw sampled_tasks.png into the run: what its sampler drew over the training; returns its path.

    Each number of a task has a line for the median, and a band that holds 80 % of the tasks of an iteration. None where
    tasks were drawn from the family's own distribution.

    Raises:
        RunError: when the disk refuses it.
    """
    rows = run.progress()
    names = sampled_parameters(rows)
    if not names:
        return None
    figure = Figure(figsize=(7, 1 + 1.7 * len(names)), layout="constrained")
    panels = figure.subplots(len(names), 1, squeeze=False)[:, 0]
    for axes, name in zip(panels, names, strict=True):
        drawn = [row for row in rows if isinstance(row.get(f"sampler/{name}/p50"), (int, float))]
        x = [row[STEP_TAG] for row in drawn]
        low, middle, high = ([row[f"sampler/{name}/{part}"] for row in drawn] for part in ("p10", "p50", "p90"))
        axes.fill_between(x, low, high, color=_OURS, alpha=0.2, linewidth=0)
        axes.plot(x, middle, color=_OURS, linewidth=1.4)
        axes.set_ylabel(name)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.grid(alpha=0.3)
    panels[-1].set_xlabel("environment steps, or examples")
    figure.suptitle("Training tasks drawn: median and 80 % of each iteration's", fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return run.save_picture("sampled_tasks", buffer.getvalue())


def _title(run: Run, evaluation: Evaluation) -> str:
    """What was run: the names, the seed, the code, and the settings that the command gave, in one or two lines."""
    config, meta = run.config(), run.meta()
    git = meta.get("git")
    commit = f"commit {str(git['commit'])[:9]}" if isinstance(git, dict) and "commit" in git else ""
    train = config.get("train")
    length = f"{train['num_iterations']:,} iterations" if isinstance(train, dict) and "num_iterations" in train else ""
    seed = f"seed {config['seed']}" if "seed" in config else ""
    first = " · ".join(filter(None, (evaluation.family, evaluation.agent, seed, length, commit, run.path.name)))
    settings = _overrides(str(meta.get("command", "")))
    return "\n".join(filter(None, (first, settings)))


def _overrides(command: str) -> str:
    """The settings that a command gives other values than its recipe's."""
    try:
        words = shlex.split(command)
    except ValueError:
        return ""
    starts = [index for index, word in enumerate(words) if word.startswith("--")] + [len(words)]
    parts = (words[start:end] for start, end in pairwise(starts))
    kept = " ".join(" ".join(part) for part in parts if part[0].startswith(("--family.", "--agent.", "--train.")))
    return kept if len(kept) <= _TITLE_WIDTH else f"{kept[: _TITLE_WIDTH - 1]}…"


def along_curve(baselines: Mapping[str, list[float]], evaluation: Evaluation) -> dict[str, list[float]]:
    """Baselines by point of the adaptation curve, without those whose trials are shorter than it.

    Where a point is a block of many episodes, it is their mean: such as have no memory get no better.
    """
    num_points = len(evaluation.points)
    if not evaluation.measure.adds_up:
        return {name: [fmean(episodes)] * num_points for name, episodes in baselines.items() if episodes}
    return {name: episodes[:num_points] for name, episodes in baselines.items() if len(episodes) >= num_points}


def _draw_adaptation(
    axes: Axes, evaluation: Evaluation, bounds: Mapping[str, list[float]], expected: Expected | None = None
) -> None:
    """Return by episode, or score by step, and the bounds, with 95 % intervals; points beyond training are hollow."""
    measure = evaluation.measure
    numbers = range(measure.first, len(evaluation.points) + measure.first)
    means = [score.mean for score in evaluation.points]
    low, high = ([score.ci95[end] for score in evaluation.points] for end in (0, 1))
    marker = "o" if len(numbers) <= _MARKED_POINTS else ""
    trained = min(evaluation.trained_points or len(numbers), len(numbers))
    style: dict[str, Any] = {"color": _OURS, "linewidth": 2.2, "marker": marker, "zorder": 3}
    axes.plot(numbers[:trained], means[:trained], label=evaluation.agent, **style)
    if trained < len(numbers):
        beyond = slice(trained - 1, None)  # from the last trained point, which keeps its own marker
        hollow = {"linestyle": ":", "markerfacecolor": "white", "markevery": slice(1, None)}
        axes.plot(numbers[beyond], means[beyond], label="beyond training", **style | hollow)
    if marker:
        margin = [[m - lo for m, lo in zip(means, low, strict=True)], [h - m for m, h in zip(means, high, strict=True)]]
        axes.errorbar(numbers, means, margin, color=_OURS, fmt="none", capsize=3, linewidth=1.4)
    else:
        axes.fill_between(numbers, low, high, color=_OURS, alpha=0.2, linewidth=0)
    _draw_expected(axes, expected, measure, len(numbers))
    colours = _colours_of(bounds)
    for name, values in bounds.items():
        axes.plot(numbers, values, color=colours[name], linewidth=1.4, linestyle="--", label=name.replace("_", "-"))
        if name in evaluation.bound_intervals:
            low, high = zip(*evaluation.bound_intervals[name], strict=True)
            axes.fill_between(numbers, low, high, color=colours[name], alpha=0.12, linewidth=0)
    title = f"adaptation: {evaluation.num_tasks} {evaluation.split} tasks, 95 % intervals of means"
    axes.set(
        xlabel=_unit_of(evaluation),
        ylabel=MEASURES.get(measure.name, measure.name),
        title=f"{title}{_gain(evaluation)}",
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if not measure.higher_is_better:
        axes.set_yscale("log")
    _finish(axes)


def _draw_expected(axes: Axes, expected: Expected | None, measure: Measure, num_points: int) -> None:
    """What the recipe expects at a point, as a short line over it; nothing where it is of the whole trial."""
    if expected is None or (expected.point is None and measure.adds_up and num_points > 1):
        return
    at = measure.first + num_points - 1 if expected.point is None else expected.point
    if measure.first <= at < measure.first + num_points:
        words = f"expected: at {'least' if expected.at_most is None else 'most'} {expected.limit:g}"
        axes.plot([at - 0.25, at + 0.25], [expected.limit] * 2, color="black", linewidth=2, zorder=4, label=words)


def _colours_of(bounds: Iterable[str]) -> dict[str, str]:
    """A colour for each bound: its own, or one that no other has, by its place among the others."""
    others = [name for name in bounds if name not in _KNOWN]
    return _KNOWN | dict(zip(others, _OTHERS * (len(others) // len(_OTHERS) + 1), strict=False))


def _unit_of(evaluation: Evaluation) -> str:
    """What the horizontal axis counts."""
    if evaluation.measure.adds_up:
        return "episode of the trial"
    episodes = evaluation.experience[1] if len(evaluation.experience) > 1 else 1
    each = f", each after {episodes} more episodes in the task" if episodes > 1 else ""
    return f"{evaluation.measure.point}s of adaptation{each}"


def _gain(evaluation: Evaluation) -> str:
    """The gain of the last point over the first, in a line of its own."""
    if evaluation.gain is None:
        return ""
    first = evaluation.measure.first
    low, high = evaluation.gain.ci95
    ends = f"{evaluation.measure.point} {first + len(evaluation.points) - 1} over {first}"
    return f"\ngain of {ends}, paired by task: {evaluation.gain.mean:.3g} ({low:.3g} to {high:.3g})"


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
    for phase, colour in (("prior", _FIRST), ("posterior", _OURS)):  # of agents that collect from these two
        logged = [row for row in rows if f"meta_train/return/{phase}" in row]
        steps, returns = ([row[tag] for row in logged] for tag in (STEP_TAG, f"meta_train/return/{phase}"))
        if logged:
            axes.plot(steps, returns, "-", color=colour, alpha=0.6, linewidth=1.2, label=f"{phase}, training tasks")
    axes.set(xlabel="environment steps", ylabel="return", title="meta-training")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if axes.lines:
        _finish(axes)


def _draw_scores(axes: Axes, run: Run, measure: Measure) -> None:
    """The score on training queries, smoothed, and before and after adaptation on held-out tasks, against examples."""
    rows, train_tag = run.progress(), f"train/query_{measure.name}"
    values = [row[train_tag] for row in rows if train_tag in row]
    width = max(1, len(values) // _CURVE_POINTS)
    blocks = [values[start : start + width] for start in range(0, len(values), width)]
    steps = [row[STEP_TAG] for row in rows if train_tag in row][width - 1 :: width]
    means = [sum(block) / len(block) for block in blocks][: len(steps)]
    axes.plot(steps, means, color="#888888", alpha=0.7, linewidth=1.2, label="training tasks, after adaptation")
    source, tasks = ("meta_val", "validation tasks") if any("meta_val/iqm" in row for row in rows) else _TESTED
    points = logged_in(rows, f"{source}/{measure.tag}")
    for point, colour in zip(dict.fromkeys(points[:1] + points[-1:] + points[1:2]), _POINT_COLOURS, strict=False):
        tag = f"{source}/{measure.tag}{point}"
        logged = [row for row in rows if tag in row]
        x, y = [row[STEP_TAG] for row in logged], [row[tag] for row in logged]
        label = f"{tasks}, {point} {measure.point}{'' if point == 1 else 's'}"
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
