"""The charts of a run, by Plotly. Colours are names of the page's own, as var(--name), and differ in light and dark."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from experiments.cli.plots import along_curve, ends, logged_in, sampled_parameters
from experiments.cli.tables import MEASURES
from experiments.experiment.definition import Expected
from experiments.workbench.reporting.analysis import (
    MOST_MAPS,
    TaskMap,
    TimeSplit,
    learning_curve,
    plane_maps,
    task_maps,
    time_split,
)
from experiments.workbench.reporting.palette import bound_colours
from experiments.workbench.reporting.runs import ReportedRun
from metarl.evaluation import Evaluation, Measure, Score, logged_points

OURS = "ours"  # the colour of the agent, and of its last point
POINTS = ("point-first", OURS, "point-other", "point-more")  # the colours of points of adaptation, the first one first
_MARKED_POINTS = 20  # of an adaptation curve, whose points are marked one by one up to that many
_SOURCES = {"meta_train": "training tasks", "meta_val": "validation tasks", "meta_test": "test tasks"}
_LEAST_EXPLAINED = 0.02  # of the variance between tasks, by a parameter that is drawn where there are many
_HEIGHT = 340  # pixels


@dataclass(frozen=True)
class Chart:
    """A chart, what it shows, and how to read it."""

    title: str
    caption: str
    figure: go.Figure
    height: int = _HEIGHT

    def as_json(self) -> dict[str, Any]:
        """What Plotly draws; the look comes from the page."""
        content = self.figure.to_plotly_json()
        content["layout"].pop("template", None)
        return content


def colour(name: str, alpha: str = "") -> str:
    """A colour of the page's; alpha: "-band" for the one of intervals."""
    return f"var(--{name}{alpha})"


def plain(text: str) -> str:
    """Text for a chart, in which Plotly would read tags."""
    return html.escape(text, quote=False)


def short(values: Iterable[float | None]) -> list[float | None]:
    """Numbers with as many digits as a chart can show."""
    return [None if value is None or not math.isfinite(value) else float(f"{value:.5g}") for value in values]


def measure_name(measure: Measure) -> str:
    return MEASURES.get(measure.name, measure.name)


def curve_axis(measure: Measure) -> str:
    """What the horizontal axis of an adaptation curve counts."""
    return "episode of the trial" if measure.adds_up else f"{measure.point}s of adaptation"


def adaptation(run: ReportedRun, evaluation: Evaluation) -> Chart:
    """The score by point of the curve, and its bounds."""
    measure, points = evaluation.measure, evaluation.points
    numbers = list(range(measure.first, measure.first + len(points)))
    known = along_curve(run.baselines, evaluation) if evaluation.split == "test" else {}
    figure = go.Figure()
    bounds = known | evaluation.bounds
    tokens = bound_colours(bounds)
    for name, values in bounds.items():
        token = tokens[name]
        label = plain(name.replace("_", "-"))
        if name in evaluation.bound_intervals:
            figure.add_trace(_band(numbers, evaluation.bound_intervals[name], token))
        style = {"color": colour(token), "width": 1.8, "dash": "dash"}
        figure.add_scatter(x=numbers, y=short(values), name=f"{label} (bound)", mode="lines", line=style)
    trained = min(evaluation.trained_points or len(points), len(points))
    name = plain(evaluation.agent)
    figure.add_trace(_with_intervals(numbers[:trained], points[:trained], OURS, name))
    if trained < len(points):
        ends_at = slice(max(trained - 1, 0), trained + 1)
        style = {"color": colour(OURS), "width": 2.4, "dash": "dot"}
        y = short(score.mean for score in points[ends_at])
        figure.add_scatter(x=numbers[ends_at], y=y, mode="lines", line=style, hoverinfo="skip", showlegend=False)
        beyond = _with_intervals(numbers[trained:], points[trained:], OURS, f"{name}, beyond training")
        figure.add_trace(beyond.update(marker={"symbol": "circle-open"}, line={"dash": "dot"}))
    _axes(figure, curve_axis(measure), measure_name(measure), whole=len(points) <= _MARKED_POINTS)
    if not measure.higher_is_better:
        figure.update_yaxes(type="log")
    dashed = " Dashed lines are known bounds on these tasks." if bounds else ""
    if evaluation.split == "test" and run.expected is not None:
        _add_expected(figure, run.expected, measure, len(points))
    hollow = " Hollow points lie beyond training." if trained < len(points) else ""
    return Chart(
        f"Adaptation on {evaluation.num_tasks:,} {evaluation.split} tasks",
        f"Mean over tasks with its 95 % interval.{dashed}{hollow}",
        figure,
    )


def _add_expected(figure: go.Figure, expected: Expected, measure: Measure, num_points: int) -> None:
    """What the recipe expects at a point, as a short line over it; nothing where it is of the whole trial."""
    if expected.point is None and measure.adds_up and num_points > 1:
        return
    at = measure.first + num_points - 1 if expected.point is None else expected.point
    if measure.first <= at < measure.first + num_points:
        name = f"expected: at {'least' if expected.at_most is None else 'most'} {expected.limit:g}"
        style = {"color": colour("text"), "width": 3}
        figure.add_scatter(x=[at - 0.2, at + 0.2], y=[expected.limit] * 2, name=name, mode="lines", line=style)


def splits(run: ReportedRun) -> Chart | None:
    """The first and the last point of the curve on each split; None where only one was evaluated."""
    if len(run.evaluations) < 2:
        return None
    figure = go.Figure()
    of_splits = {split: saved.evaluation for split, saved in run.evaluations.items()}
    measure = next(iter(of_splits.values())).measure
    of_splits = {split: one for split, one in of_splits.items() if one.measure == measure}
    shown = {"first": 0, "last": -1} if any(len(one.points) > 1 for one in of_splits.values()) else {"last": -1}
    for which, index in shown.items():
        token = OURS if which == "last" else POINTS[0]
        trace = _with_intervals(
            list(of_splits), [one.points[index] for one in of_splits.values()], token, f"{which} {measure.point}"
        )
        figure.add_trace(trace.update(mode="markers", marker={"size": 10}))
    names = list(dict.fromkeys(name for one in of_splits.values() for name in one.bounds))
    for name, token in bound_colours(names).items():
        values = [one.bounds[name][-1] if name in one.bounds else None for one in of_splits.values()]
        marker = {"symbol": "line-ew", "size": 26, "line": {"color": colour(token), "width": 2.5}}
        label = f"{plain(name.replace('_', '-'))} (bound, last {measure.point})"
        figure.add_scatter(x=list(of_splits), y=short(values), mode="markers", name=label, marker=marker)
    _axes(figure, "split", measure_name(measure))
    if not measure.higher_is_better:
        figure.update_yaxes(type="log")
    return Chart("Splits side by side", "Means over tasks with 95 % intervals; short lines are bounds.", figure)


def maps(evaluation: Evaluation) -> tuple[list[Chart], int]:
    """The score over each parameter of the task, and how many of them explain too little of it to be drawn."""
    measure = evaluation.measure
    better = "higher" if measure.higher_is_better else "lower"
    charts = []
    for one in plane_maps(evaluation):
        text = f"Mean {measure.name} at the last {measure.point}; brighter is better ({better})."
        axes = (f"{one.name}.0", f"{one.name}.1")
        charts.append(Chart(f"{one.name}, in its plane", text, _heat_map(one, measure, axes), 380))
    of_parameters = task_maps(evaluation, logged_points(measure, len(evaluation.points)))
    drawn = of_parameters[:MOST_MAPS]
    if len(of_parameters) > len(drawn):
        drawn = [one for one in drawn if (one.explained or 0) >= _LEAST_EXPLAINED]
    for one in drawn:
        text = f"Mean {measure.name} by {measure.point}; brighter is better ({better})."
        if one.explained is not None:
            explained = f"{100 * one.explained:.0f} % of the variance between tasks at the last {measure.point}"
            text += f" The columns explain {explained}."
        height = 150 + 22 * max(4, len(one.rows))
        charts.append(Chart(one.name, text, _heat_map(one, measure, (one.name, "")), height))
    return charts, len(of_parameters) - len(drawn)


def learning(run: ReportedRun, measure: Measure) -> Chart | None:
    """The score during training: at the first and the last point of adaptation, on training and on held-out tasks."""
    rows = run.rows
    figure = go.Figure()
    if measure.name != "return":
        x, y = learning_curve(rows, f"train/query_{measure.name}")
        if x:
            style = {"color": colour("muted"), "width": 1.2}
            figure.add_scatter(
                x=short(x), y=short(y), name="training tasks, after adaptation", mode="lines", line=style
            )
    by_source = {source: logged_in(rows, f"{source}/{measure.tag}") for source in _SOURCES}
    trained = by_source["meta_train"]
    shown = {
        source: sorted({*ends(points), *(point for point in ends(trained) if point in points)})
        for source, points in by_source.items()
    }
    drawn = sorted({point for points in shown.values() for point in points})
    tokens = dict(zip(dict.fromkeys((*ends(drawn), *drawn)), POINTS, strict=False))  # the first and the last one first
    for source, points in shown.items():
        for point in points:
            tag = f"{source}/{measure.tag}{point}"
            _learning_line(figure, rows, tag, source, f"{measure.point} {point}", tokens.get(point, POINTS[-1]))
    if not trained and measure.name == "return":  # an agent that collects from its prior and its posterior
        parts = {tag.removeprefix("meta_train/return/") for row in rows for tag in row if tag.startswith("meta_train/")}
        for part, token in zip(("prior", "posterior"), POINTS, strict=False):
            if part in parts:
                _learning_line(figure, rows, f"meta_train/return/{part}", "meta_train", part, token)
    if not figure.data:
        return None
    _axes(figure, sample_name(measure), measure_name(measure), si=True)
    if not measure.higher_is_better:
        figure.update_yaxes(type="log")
    text = "Lines are training tasks, markers held-out tasks; a colour is a point of adaptation."
    return Chart("Score during training", text, figure)


def sampled_tasks(run: ReportedRun, measure: Measure) -> list[Chart]:
    """What a sampler of training tasks drew over the training: the spread of each number of a task."""
    charts: list[Chart] = []
    for name in sampled_parameters(run.rows):
        lines = {part: learning_curve(run.rows, f"sampler/{name}/{part}") for part in ("p10", "p50", "p90")}
        (x, low), (_, middle), (_, high) = lines.values()
        figure = go.Figure()
        figure.add_trace(_band(x, list(zip(low, high, strict=True)), OURS))
        style = {"color": colour(OURS), "width": 1.6}
        figure.add_scatter(x=short(x), y=short(middle), name="median", mode="lines", line=style)
        _axes(figure, sample_name(measure), plain(name), si=True)
        text = "The median of what was drawn in each iteration, and the band that holds 80 % of it."
        charts.append(Chart(f"Training tasks drawn: {name}", text, figure, 240))
    return charts


def time_spent(run: ReportedRun, measure: Measure) -> tuple[Chart, TimeSplit] | None:
    """Where the time of an iteration went, over the training."""
    split = time_split(run.rows)
    if split is None:
        return None
    figure = go.Figure()
    for name, token, values in (("collecting", "collect", split.collecting), ("updating", "update", split.updating)):
        figure.add_bar(x=short(split.samples), y=short(values), name=name, marker={"color": colour(token)})
    figure.update_layout(barmode="stack", bargap=0.05)
    _axes(figure, sample_name(measure), "seconds per iteration", si=True)
    return Chart("Time per iteration", "Collecting experience and updating the learner, stacked.", figure, 280), split


def sample_name(measure: Measure) -> str:
    return "environment steps" if measure.name == "return" else "examples"


def _learning_line(
    figure: go.Figure, rows: Sequence[Mapping[str, float]], tag: str, source: str, what: str, token: str
) -> None:
    x, y = learning_curve(rows, tag)
    style: dict[str, Any] = {"mode": "lines", "line": {"color": colour(token), "width": 1.6}, "opacity": 0.75}
    if source != "meta_train":
        symbol = "circle" if source == "meta_test" else "diamond"
        style = {
            "mode": "lines+markers",
            "line": {"color": colour(token), "width": 1},
            "marker": {"color": colour(token), "size": 7, "symbol": symbol},
        }
    figure.add_scatter(x=short(x), y=short(y), name=f"{what}, {_SOURCES[source]}", **style)


def _with_intervals(x: Sequence[Any], scores: Sequence[Score], token: str, name: str) -> go.Scatter:
    """Means with their intervals as bars; along long curves without markers."""
    y = short(score.mean for score in scores)
    high = short(score.ci95[1] - score.mean for score in scores)
    low = short(score.mean - score.ci95[0] for score in scores)
    bars = {"type": "data", "symmetric": False, "array": high, "arrayminus": low, "thickness": 1.6, "width": 4}
    return go.Scatter(
        x=list(x),
        y=y,
        name=name,
        mode="lines+markers" if len(x) <= _MARKED_POINTS else "lines",
        line={"color": colour(token), "width": 2.4},
        marker={"color": colour(token), "size": 7},
        error_y={**bars, "color": colour(token)} if len(x) <= _MARKED_POINTS else None,
        customdata=[list(short(score.ci95)) for score in scores],
        hovertemplate="%{y:.4g} (%{customdata[0]:.4g} to %{customdata[1]:.4g})",
    )


def _band(x: Sequence[float], intervals: Sequence[tuple[float, float]], token: str) -> go.Scatter:
    """An interval along a line."""
    low, high = (short(interval[end] for interval in intervals) for end in (0, 1))
    return go.Scatter(
        x=[*x, *reversed(x)],
        y=[*high, *reversed(low)],
        fill="toself",
        fillcolor=colour(token, "-band"),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
    )


def _heat_map(one: TaskMap, measure: Measure, axes: tuple[str, str]) -> go.Figure:
    figure = go.Figure()
    x_name, y_name = (plain(name) for name in axes)
    where = f"{x_name} %{{x}}<br>{y_name} %{{y}}"
    figure.add_heatmap(
        x=one.columns,
        y=one.rows,
        z=[short(row) for row in one.values],
        customdata=one.counts,
        colorscale="Viridis",
        reversescale=not measure.higher_is_better,
        colorbar={"title": {"text": plain(measure.name), "side": "right"}, "thickness": 12, "outlinewidth": 0},
        hovertemplate=f"{where}<br>{plain(measure.name)} %{{z:.4g}}, %{{customdata}} tasks<extra></extra>",
        hoverongaps=False,
        xgap=1,
        ygap=1,
    )
    _axes(figure, x_name, y_name)
    figure.update_layout(hovermode="closest")
    figure.update_xaxes(type="category", showgrid=False, tickangle=-45)
    figure.update_yaxes(type="category", showgrid=False)
    if not y_name:
        figure.update_yaxes(autorange="reversed")  # the first point on top
    return figure


def _axes(figure: go.Figure, x: str, y: str, *, whole: bool = False, si: bool = False) -> None:
    """Name the axes. whole: x has few whole numbers. si: x has large numbers."""
    figure.update_xaxes(title_text=x)
    figure.update_yaxes(title_text=y)
    if whole:
        figure.update_xaxes(dtick=1, tickformat="d")
    if si:
        figure.update_xaxes(tickformat="~s")
