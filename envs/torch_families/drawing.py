"""Images of planar task families: a canvas in the family's units, and environments that use it.

Pillow draws at twice the size and scales down for smooth edges; it is imported with the first image.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from envs.torch_families.torch_env import Dynamics, TorchEnv
from metarl.records import Record, Step

T = TypeVar("T", bound=Record)
T_contra = TypeVar("T_contra", bound=Record, contravariant=True)

IMAGE_SIZE = 480  # height and width of an image, in pixels
_OVERSAMPLING = 2

PAPER, GRID, INK = (250, 250, 247), (222, 224, 228), (70, 76, 88)
GOAL, AGENT, TRAIL, REGION = (46, 158, 91), (44, 98, 200), (185, 205, 244), (228, 236, 230)


class Drawn(Dynamics[T_contra], Protocol[T_contra]):
    """Dynamics that can be rendered."""

    @property
    def seconds_per_step(self) -> float:
        """The duration of a step in a video."""
        ...

    def image(self, task: T_contra, trail: Tensor) -> NDArray[np.uint8]:
        """An image [480, 480, 3] of one task (leading axis 1) and its states `trail` [K, ...], the last one current."""
        ...


class DrawnEnv(TorchEnv[T]):
    """A `TorchEnv` whose rows can be rendered; implements `metarl.protocols.Renders` too."""

    def __init__(self, dynamics: Drawn[T], num_rows: int, generator: torch.Generator) -> None:
        super().__init__(dynamics, num_rows, generator)
        self.seconds_per_step = dynamics.seconds_per_step
        self._drawn = dynamics
        self._before: Tensor | None = None  # [B, ...], the states before the last step
        self._trails: dict[int, list[tuple[int, Tensor]]] = {}  # (elapsed steps, state) of rendered rows

    def reset(self, tasks: T) -> Step:
        self._before, self._trails = None, {}
        return super().reset(tasks)

    def step(self, action: Tensor, active: Tensor | None = None) -> Step:
        self._before = self._state
        return super().step(action, active)

    def render(self, row: int = 0) -> NDArray[np.uint8]:
        """An image of a row after its last step, with its path as far as it was rendered or followed.

        Raises:
            RuntimeError: when called before `reset`.
        """
        if self._tasks is None:
            raise RuntimeError("render was called before reset: the rows have no tasks yet")
        self.follow(row)
        states = torch.stack([earlier for _, earlier in self._trails[row]])
        return self._drawn.image(self._tasks[row : row + 1].to("cpu"), states.cpu())

    def follow(self, row: int = 0) -> None:
        """Remember what the last step led to in a row, for the path that a later `render` shows; draws no image.

        Raises:
            RuntimeError: when called before `reset`.
        """
        if self._arrived is None:
            raise RuntimeError("follow was called before reset: the rows are nowhere yet")
        state, elapsed = self._arrived[0][row], int(self._arrived[1][row])
        trail = [(count, earlier) for count, earlier in self._trails.get(row, []) if count < elapsed]
        if not trail and elapsed > 0 and self._before is not None:
            trail = [(elapsed - 1, self._before[row])]
        self._trails[row] = [*trail, (elapsed, state)]


class Canvas:
    """A square image of the region [-limit, limit]² around a centre, y up."""

    def __init__(self, limit: float, centre: tuple[float, float] = (0.0, 0.0)) -> None:
        from PIL import Image, ImageDraw  # imported here because only images need it

        self._size = IMAGE_SIZE * _OVERSAMPLING
        self._scale = self._size / (2 * limit)
        self._corner = (centre[0] - limit, centre[1] + limit)
        self._image = Image.new("RGB", (self._size, self._size), PAPER)
        self._draw: Any = ImageDraw.Draw(self._image)

    def line(self, points: Sequence[Sequence[float]], colour: tuple[int, ...], width: float = 2.0) -> None:
        """A line through points; width in pixels of the image."""
        if len(points) > 1:
            places = [self._place(point) for point in points]
            self._draw.line(places, fill=colour, width=round(width * _OVERSAMPLING), joint="curve")

    def disc(self, centre: Sequence[float], radius: float, colour: tuple[int, ...], *, filled: bool = True) -> None:
        """A disc or a ring; radius in the family's units."""
        x, y = self._place(centre)
        reach = radius * self._scale
        style: dict[str, Any] = {"fill": colour} if filled else {"outline": colour, "width": 2 * _OVERSAMPLING}
        self._draw.ellipse((x - reach, y - reach, x + reach, y + reach), **style)

    def dot(self, centre: Sequence[float], pixels: float, colour: tuple[int, ...]) -> None:
        """A disc whose radius is given in pixels of the image."""
        self.disc(centre, pixels * _OVERSAMPLING / self._scale, colour)

    def box(self, low: Sequence[float], high: Sequence[float], colour: tuple[int, ...]) -> None:
        """A filled rectangle."""
        (left, bottom), (right, top) = self._place(low), self._place(high)
        self._draw.rectangle((left, top, right, bottom), fill=colour)

    def trail(self, points: Sequence[Sequence[float]], colour: tuple[int, ...] = AGENT) -> None:
        """The path of a point, from light to dark in the course of time; a ring at its start, a dot where it is now."""
        for index, (start, end) in enumerate(pairwise(points)):
            shade = self._shade(index / (len(points) - 1), colour)
            self.line([start, end], shade, width=3)
            self.dot(end, 2.5, shade)
        self.dot(points[0], 6, INK)
        self.dot(points[0], 4, PAPER)
        self.dot(points[-1], 8, colour)

    @staticmethod
    def _shade(time: float, colour: tuple[int, ...]) -> tuple[int, ...]:
        """The colour of a path: light at time 0, the agent's own at time 1."""
        return tuple(round((1 - time) * early + time * late) for early, late in zip(TRAIL, colour, strict=True))

    def pixels(self) -> NDArray[np.uint8]:
        """The image [480, 480, 3]."""
        from PIL import Image

        small = self._image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.LANCZOS)
        return np.asarray(small, dtype=np.uint8)

    def _place(self, point: Sequence[float]) -> tuple[float, float]:
        return (point[0] - self._corner[0]) * self._scale, (self._corner[1] - point[1]) * self._scale
