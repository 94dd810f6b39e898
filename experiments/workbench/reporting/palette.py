"""The colours of the page by their meaning, in light and in dark. A chart names them as var(--name).

Those of points and bounds are, in light, the ones of a run's own plots (experiments/cli/plots.py).
"""

from __future__ import annotations

from typing import NamedTuple

_BAND_ALPHA = 0.16


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
    "point-other": Colour("#7d4fa3", "#b794e0"),
    "point-more": Colour("#2a8a4a", "#5cc98a"),
}
BOUNDS = {
    "bound-1": Colour("#2a8a4a", "#5cc98a"),
    "bound-2": Colour("#b5651d", "#d99a5b"),
    "bound-3": Colour("#7d4fa3", "#b794e0"),
    "bound-4": Colour("#888888", "#a5abb3"),
    "bound-5": Colour("#c23b5a", "#f08aa5"),
    "bound-6": Colour("#5b7f8c", "#8fb8c7"),
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


def variables(theme: str) -> dict[str, str]:
    """The custom properties of a theme, "light" or "dark", by name; with a "-band" for what is drawn as an interval."""
    found = {name: getattr(colour, theme) for name, colour in (PAGE | POINTS | BOUNDS | GROUPS | TIME).items()}
    bands = {f"{name}-band": _faint(found[name]) for name in (*POINTS, *BOUNDS, *GROUPS)}
    return found | bands


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {_BAND_ALPHA})"
