"""Markers of a locomotion task's target, as arrows and balls in the scene, by the names of the task's fields.

`goal` [2] is shown as a ball on the floor, and an arrow above the body that points to it. `velocity` [] (along x) and
`direction` [] or [2] are shown as an arrow above the body, over another arrow of its actual motion, which has the same
length at the target speed, or at one metre per second if there is no target speed. Other fields have no marker.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from envs.simulators.rendering import ACTUAL, TARGET, Arrow, Ball
from metarl.records import Record

ARROW_LENGTH = 0.7  # length of the target's arrow, m
ARROW_HEIGHT = 0.75  # height above the body's centre, m
GAP = 0.13  # distance between the two arrows, m
BALL_HEIGHT = 0.1


def task_markers(task: Record, place: Sequence[float], motion: Sequence[float]) -> list[Arrow | Ball]:
    """Markers of one task (no leading axis) for a body at `place` [3] with velocity `motion` [3], m/s."""
    values = {name: value.flatten().tolist() for name, value in vars(task).items() if value is not None}
    above = (place[0], place[1], place[2] + ARROW_HEIGHT)
    if len(goal := values.get("goal", ())) == 2:
        way = (goal[0] - place[0], goal[1] - place[1])
        length = ARROW_LENGTH / max(math.hypot(*way), ARROW_LENGTH)
        return [Ball((*goal, BALL_HEIGHT)), _arrow(above, way, length, TARGET)]
    if len(velocity := values.get("velocity", ())) == 1:
        wanted = (velocity[0], 0.0)
        longest = max(abs(velocity[0]), math.hypot(*motion[:2]) / 2, 1e-3)
    elif len(direction := values.get("direction", ())) in (1, 2):
        wanted = (direction[0], direction[1] if len(direction) == 2 else 0.0)
        longest = max(1.0, math.hypot(*motion[:2]) / 2)
    else:
        return []
    below = (place[0], place[1], place[2] + ARROW_HEIGHT - GAP)
    scale = ARROW_LENGTH / longest
    return [_arrow(above, wanted, scale, TARGET), _arrow(below, motion, scale, ACTUAL)]


def _arrow(
    place: Sequence[float], vector: Sequence[float], scale: float, colour: tuple[float, float, float, float]
) -> Arrow:
    """An arrow along the horizontal part of a vector."""
    return Arrow(place, (scale * vector[0], scale * vector[1], 0.0), colour)
