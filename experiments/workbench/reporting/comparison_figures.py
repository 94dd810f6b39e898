"""The charts of a comparison: what `metarl compare --out` draws, on a page."""

from __future__ import annotations

import plotly.graph_objects as go

from experiments.cli.tables import MEASURES
from experiments.workbench.comparing.comparison import Comparison, Curve, Estimate
from experiments.workbench.reporting.figures import Chart, colour, plain, short

_GROUPS = tuple(f"group-{number}" for number in range(1, 8))
_DASHES = ("solid", "dash", "dot", "dashdot")  # one for each round of the colours
_MOST_PAIRS = 15  # of groups whose probability of improvement is drawn


def comparison_charts(comparison: Comparison) -> list[Chart]:
    """Adaptation, learning, performance profiles, the last point and probabilities of improvement."""
    measure = comparison.measure
    name: str = measure["name"]
    what = MEASURES.get(name, name)
    point = "episode" if measure["point"] == "episode" else f"{measure['point']}s of adaptation"
    if comparison.by_experience:
        point = "episodes of experience in the task"
    after = f"{what} after adaptation"
    is_log = not measure["higher_is_better"]
    bands = "Interquartile means with 95 % bootstrap intervals over seeds, within tasks."
    above = "The fraction of runs and tasks with a higher score, with 95 % bootstrap intervals."
    adaptation: list[Curve | None] = [row.adaptation for row in comparison.rows]
    profile: list[Curve | None] = [row.profile for row in comparison.rows]
    charts = [
        Chart(
            "Adaptation", bands, _lines(comparison, adaptation, point, what, is_log, whole=not comparison.by_experience)
        ),
        Chart("Performance profile", above, _lines(comparison, profile, after, "fraction above", False)),
    ]
    for axis, title in (("samples", "samples"), ("seconds", "seconds of training")):
        curves = [row.learning.get(axis) for row in comparison.rows]
        if any(curve is not None for curve in curves):
            charts.append(Chart(f"Learning, by {axis}", bands, _lines(comparison, curves, title, after, is_log)))
    charts.append(_last(comparison, after))
    if comparison.improvements:
        charts.append(_improvements(comparison))
    return charts


def _looks(number: int) -> list[tuple[str, str]]:
    return [(_GROUPS[n % len(_GROUPS)], _DASHES[n // len(_GROUPS) % len(_DASHES)]) for n in range(number)]


def _lines(
    comparison: Comparison, curves: list[Curve | None], x: str, y: str, is_log: bool, *, whole: bool = False
) -> go.Figure:
    """A curve for each group, with its interval; without those that were not logged. whole: x has whole numbers."""
    figure = go.Figure()
    for row, curve, (token, dash) in zip(comparison.rows, curves, _looks(len(comparison.rows)), strict=True):
        if curve is None:
            continue
        low = [estimate.low for estimate in curve.estimates]
        high = [estimate.high for estimate in curve.estimates]
        places = short(curve.places)
        if None not in low and None not in high and len(low) > 1:
            figure.add_scatter(
                x=[*places, *reversed(places)],
                y=[*short(high), *reversed(short(low))],
                fill="toself",
                fillcolor=colour(token, "-band"),
                line={"width": 0},
                mode="lines",
                hoverinfo="skip",
                showlegend=False,
                legendgroup=row.label,
            )
        figure.add_scatter(
            x=places,
            y=short(estimate.value for estimate in curve.estimates),
            customdata=[list(short(estimate[1:])) for estimate in curve.estimates],
            hovertemplate="%{y:.4g} (%{customdata[0]:.4g} to %{customdata[1]:.4g})",
            name=_name(row.label, len(row.seeds)),
            legendgroup=row.label,
            mode="lines+markers" if len(places) <= 20 else "lines",
            line={"color": colour(token), "width": 2, "dash": dash},
            marker={"color": colour(token), "size": 6},
        )
    figure.update_xaxes(title_text=x)
    figure.update_yaxes(title_text=y, type="log" if is_log else "linear")
    if whole and len(comparison.rows[0].adaptation.places) <= 20:
        figure.update_xaxes(dtick=1)
    return figure


def _last(comparison: Comparison, what: str) -> Chart:
    figure = go.Figure()
    for row, (token, _) in zip(comparison.rows, _looks(len(comparison.rows)), strict=True):
        for estimate, width, name in ((row.over_seeds, 1.5, "whole seeds"), (row.last, 5, "seeds within tasks")):
            figure.add_trace(_bar(estimate, plain(row.label), token, width, name))
    _name_rows(figure, len(comparison.rows))
    figure.update_xaxes(title_text=what)
    text = "Interquartile mean at the last point; thick: interval over seeds within tasks, thin: over whole seeds."
    return Chart("The last point", text, figure, 120 + 34 * max(3, len(comparison.rows)))


def _improvements(comparison: Comparison) -> Chart:
    pairs = comparison.improvements[:_MOST_PAIRS]
    figure = go.Figure()
    for pair in pairs:
        name = plain(f"{pair.group} > {pair.over}")
        figure.add_trace(_bar(pair.probability, name, "ours", 5, "seeds within tasks"))
    figure.add_vline(x=0.5, line={"color": colour("muted"), "width": 1})
    _name_rows(figure, len(pairs))
    figure.update_xaxes(title_text="probability", range=[-0.02, 1.02])
    more = len(comparison.improvements) - len(pairs)
    text = "How likely a run of the first group scores higher than one of the second on the same task."
    text += f" {more} more pairs are not shown." if more else ""
    return Chart("Probability of improvement", text, figure, 120 + 34 * max(3, len(pairs)))


def _bar(estimate: Estimate, row: str, token: str, width: float, what: str) -> go.Scatter:
    """A value and its interval on a row of its own."""
    low, high = estimate.low, estimate.high
    bars = None
    if low is not None and high is not None:
        ends = {"array": [high - estimate.value], "arrayminus": [estimate.value - low]}
        bars = {"type": "data", "symmetric": False, **ends, "thickness": width, "width": 0, "color": colour(token)}
    interval = "one seed" if low is None or high is None else f"{low:.4g} to {high:.4g}, {what}"
    return go.Scatter(
        x=short([estimate.value]),
        y=[row],
        error_x=bars,
        mode="markers",
        marker={"color": colour(token), "size": 9},
        hovertemplate=f"%{{x:.4g}} ({interval})<extra>{row}</extra>",
        showlegend=False,
    )


def _name_rows(figure: go.Figure, number: int) -> None:
    figure.update_yaxes(range=[number - 0.4, -0.6], type="category", showgrid=False)  # the first one on top
    figure.update_layout(hovermode="closest")


def _name(label: str, num_seeds: int) -> str:
    return f"{plain(label)} ({'one seed' if num_seeds == 1 else f'{num_seeds} seeds'})"
