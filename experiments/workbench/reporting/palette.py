"""The colours of the page by their meaning, in light and in dark. A chart names them as var(--name).

The agent and the last point of its curve, the first point and each known bound have one colour everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

_BAND_ALPHA = 0.16
_NUM_OTHERS = 5  # colours of bounds without one of their own


class Colour(NamedTuple):
    """One colour, as #rrggbb."""

    light: str
    dark: str


PAGE = {
    "background": Colour("#ffffff", "#14171c"),
    "panel": Colour("#f5f6f8", "#1c2027"),
    "text": Colour("#1c2128", "#e4e7eb"),
    "muted": Colour("#57606a", "#9aa4b1"),
    "line": Colour("#d8dce1", "#343a44"),
    "link": Colour("#1f5fa8", "#7fb2ea"),
    "problem": Colour("#9a3b00", "#f2a66d"),
}
POINTS = {
    "ours": Colour("#1f5fa8", "#7fb2ea"),
    "point-first": Colour("#d98032", "#f0a361"),
    "point-other": Colour("#c23b8a", "#ee8cc1"),
    "point-more": Colour("#12a3d8", "#5cc4ec"),
}
BOUNDS = {
    "bound-oracle": Colour("#2a8a4a", "#5cc98a"),
    "bound-bayes-optimal": Colour("#0e7c7b", "#4fc0bd"),
    "bound-random": Colour("#888888", "#a5abb3"),
    "bound-1": Colour("#7d4fa3", "#b794e0"),
    "bound-2": Colour("#8a6d3b", "#cdb07c"),
    "bound-3": Colour("#5b7f8c", "#8fb8c7"),
    "bound-4": Colour("#a04040", "#e58f8f"),
    "bound-5": Colour("#444444", "#cfd3d8"),
}
GROUPS = {  # Okabe and Ito's, as in a comparison's picture
    "group-1": Colour("#0072b2", "#56a9e0"),
    "group-2": Colour("#d55e00", "#f08a4b"),
    "group-3": Colour("#009e73", "#3cc79c"),
    "group-4": Colour("#cc79a7", "#e3a3c7"),
    "group-5": Colour("#56b4e9", "#8fd0f5"),
    "group-6": Colour("#e69f00", "#f2bd4d"),
    "group-7": Colour("#000000", "#e4e7eb"),
}
TIME = {"collect": Colour("#4f8f9c", "#72b6c4"), "update": Colour("#b59a3a", "#d8bf66")}


def bound_colours(names: Iterable[str]) -> dict[str, str]:
    """The name of the colour of each bound: its own, or one by its place among the bounds without one of their own."""
    own = {name: f"bound-{name.replace('_', '-')}" for name in names}
    others = [name for name, colour in own.items() if colour not in BOUNDS]
    return own | {name: f"bound-{1 + index % _NUM_OTHERS}" for index, name in enumerate(others)}


def variables(theme: str) -> dict[str, str]:
    """The custom properties of a theme, "light" or "dark", by name; with a "-band" for what is drawn as an interval."""
    found = {name: getattr(colour, theme) for name, colour in (PAGE | POINTS | BOUNDS | GROUPS | TIME).items()}
    bands = {f"{name}-band": _faint(found[name]) for name in (*POINTS, *BOUNDS, *GROUPS)}
    return found | bands


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {_BAND_ALPHA})"
