"""Pictures of task states: principal components coloured by parameter, and distances between tasks with their tree."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from experiments.workbench.insight.probes import principal_components
from experiments.workbench.insight.states import TaskStates
from metarl.errors import UserError

MOST_PANELS = 5  # points of adaptation side by side
MOST_PARAMETERS = 3  # one below the other
MOST_GROUPS = 24  # tasks, or groups of them, in the picture of distances


def scatter(states: TaskStates, points: Sequence[int]) -> bytes:
    """The states after these points in the plane of the last one's first two principal components, as a PNG.

    A row of panels for each parameter, whose value is the colour; a vector's first entry.
    """
    points = _spread(points, MOST_PANELS)
    colours = {name: _one_number(values) for name, values in states.parameters.items()}
    colours = {name: values for name, values in colours.items() if len(values.unique()) > 1}
    names = list(colours)[:MOST_PARAMETERS]
    last = states.vectors[points[-1]]
    scale = last.std(0, correction=0)
    mean, directions = principal_components(last / scale.where(scale > 0, torch.ones_like(scale)), 2)
    size = (2.6 * len(points) + 1.0, 2.5 * len(names) + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(names), len(points), squeeze=False, sharex=True, sharey=True)
    for row, name in zip(grid, names, strict=True):
        for axes, point in zip(row, points, strict=True):
            place = (states.vectors[point] / scale.where(scale > 0, torch.ones_like(scale)) - mean) @ directions
            axes.scatter(*_two(place), c=colours[name].numpy(), cmap="viridis", s=6, linewidths=0)
            axes.set_title("before any data" if point == 0 else f"after {states.point} {point}", fontsize=9)
            axes.tick_params(labelsize=7)
        figure.colorbar(row[-1].collections[0], ax=list(row), label=name, shrink=0.9)
    figure.supxlabel("first principal component of the last states", fontsize=9)
    figure.supylabel("second", fontsize=9)
    return _png(figure)


def distances(states: TaskStates, point: int) -> tuple[bytes, float | None]:
    """The distances between the states of tasks after a point and their tree, as a PNG.

    Tasks are grouped by the first parameter that differs: by its value, or in groups of equal size. Also returns the
    correlation of state distances with parameter distances, over pairs of tasks; None for a parameter without order.

    Raises:
        UserError: when SciPy is not installed.
    """
    try:
        from scipy.cluster.hierarchy import dendrogram, linkage
        from scipy.spatial.distance import squareform
    except ImportError as error:
        raise UserError(
            "a tree of tasks needs scipy, which is not installed: pip install 'metarl[workbench]'"
        ) from error
    name, values = next((n, v) for n, v in states.parameters.items() if len(_one_number(v).unique()) > 1)
    numbers = _one_number(values)
    vectors = states.vectors[point]
    scale = vectors.std(0, correction=0)
    vectors = vectors[:, scale > 0] / scale[scale > 0]
    groups, labels = _groups(numbers)
    centres = torch.stack([vectors[groups == group].mean(0) for group in range(len(labels))])
    between = torch.cdist(centres, centres).numpy()
    between = (between + between.T) / 2
    np.fill_diagonal(between, 0)
    tree = linkage(squareform(between, checks=False), "average")
    figure = Figure(figsize=(8.5, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    found = dendrogram(tree, labels=labels, orientation="left", ax=left, color_threshold=0, above_threshold_color="C0")
    left.set_title(f"tree of tasks by state, after {states.point} {point}", fontsize=9)
    left.set_ylabel(name, fontsize=9)
    left.tick_params(labelsize=7)
    order = found["leaves"]
    image = right.imshow(between[np.ix_(order, order)], cmap="viridis", origin="lower")
    right.set_xticks(range(len(order)), [labels[index] for index in order], rotation=90, fontsize=6)
    right.set_yticks(range(len(order)), [labels[index] for index in order], fontsize=6)
    right.set_title("distance between states, in the tree's order", fontsize=9)
    figure.colorbar(image, ax=right, shrink=0.9)
    return _png(figure), _correlation(vectors, values) if values.is_floating_point() else None


def attention(weights: Sequence[Sequence[float]], point: str) -> bytes:
    """The mean attention to each step of the trial so far, a row for each point that has one, as a PNG."""
    longest = max(map(len, weights))
    grid = np.full((len(weights), longest), np.nan)
    for row, values in zip(grid, weights, strict=True):
        row[: len(values)] = values
    figure = Figure(figsize=(9, 0.45 * len(weights) + 1.4), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(grid, cmap="viridis", aspect="auto", interpolation="nearest", vmin=0)
    axes.set_yticks(range(len(weights)), ["before any data", *(f"after {point} {k}" for k in range(1, len(weights)))])
    axes.set_xlabel("step of the trial that is attended to", fontsize=9)
    axes.set_title("mean attention over tasks, blocks and heads", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.set_facecolor("#c8c8c8")  # steps to come
    figure.colorbar(image, ax=axes)
    return _png(figure)


def transfer(matrix: Sequence[Sequence[float | None]]) -> bytes:
    """The score in each task (columns) after adapting to each task (rows), as a PNG."""
    figure = Figure(figsize=(4.6, 3.8), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(np.array(matrix, dtype=float), cmap="viridis", interpolation="nearest")
    axes.set_xlabel("task that is scored", fontsize=9)
    axes.set_ylabel("task that was adapted to", fontsize=9)
    axes.tick_params(labelsize=7)
    figure.colorbar(image, ax=axes, label="score")
    return _png(figure)


def _correlation(vectors: Tensor, values: Tensor) -> float:
    """The correlation of distances between states with distances between parameters, over pairs of tasks."""
    some = slice(0, 500)
    parameters = values.reshape(len(values), -1).double()[some]
    pairs = torch.triu_indices(len(parameters), len(parameters), 1)
    both = [torch.cdist(one, one)[pairs[0], pairs[1]] for one in (vectors[some], parameters)]
    return float(torch.corrcoef(torch.stack(both))[0, 1])


def _groups(numbers: Tensor) -> tuple[Tensor, list[str]]:
    """The group of each task [N], and the groups' labels: distinct values, or ranges with as many tasks in each."""
    distinct, classes = numbers.unique(return_inverse=True)
    if len(distinct) <= MOST_GROUPS:
        return classes, [f"{float(value):.4g}" for value in distinct]
    edges = numbers.quantile(torch.linspace(0, 1, MOST_GROUPS + 1, dtype=numbers.dtype))
    groups = torch.bucketize(numbers.contiguous(), edges[1:-1], right=True)
    middles = (edges[:-1] + edges[1:]) / 2
    return groups, [f"{float(middle):.3g}" for middle in middles]


def _one_number(values: Tensor) -> Tensor:
    """A parameter [N, ...] as a colour: its first entry that varies, [N]."""
    flat = values.reshape(len(values), -1).double()
    varies = (flat.std(0, correction=0) > 0).nonzero().flatten()
    return flat[:, int(varies[0]) if len(varies) else 0]


def _two(place: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The two coordinates of points [N, 1 or 2]."""
    x = place[:, 0].numpy()
    return x, place[:, 1].numpy() if place.shape[1] > 1 else np.zeros_like(x)


def _spread(points: Sequence[int], most: int) -> list[int]:
    """At most so many of the points, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    picks = np.linspace(0, len(points) - 1, most).round().astype(int)
    return [points[index] for index in picks]


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()
