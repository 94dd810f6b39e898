"""What a locomotion task asks for, as arrows and balls in the scene; read from the names of the task's fields.

`goal` [2] is a ball at a place of the floor; `velocity` [] (m/s, along x) and `direction` [] or [2] are arrows above
the body, over another that shows how it really moves. Other fields have no picture of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

from envs.simulators.rendering import ACTUAL, TARGET, Arrow, Ball
from metarl.records import Record

ARROW_LENGTH = 0.35  # metres for each metre a second
ARROW_HEIGHT = 0.75  # above the body's centre
BALL_HEIGHT = 0.1


def task_markers(task: Record, place: Sequence[float], motion: Sequence[float]) -> list[Arrow | Ball]:
    """Markers of one task (no leading axis) for a body at `place` [3] that moves with `motion` [3] metres a second."""
    markers: list[Arrow | Ball] = []
    values = {name: value.flatten().tolist() for name, value in vars(task).items() if value is not None}
    if len(goal := values.get("goal", ())) == 2:
        markers.append(Ball((*goal, BALL_HEIGHT)))
    wanted: Sequence[float] | None = None
    if len(velocity := values.get("velocity", ())) == 1:
        wanted = (velocity[0], 0.0)
    elif len(direction := values.get("direction", ())) in (1, 2):
        wanted = (2 * direction[0], 2 * direction[1] if len(direction) == 2 else 0.0)
    if wanted is not None:
        above = (place[0], place[1], place[2] + ARROW_HEIGHT)
        below = (place[0], place[1], place[2] + ARROW_HEIGHT - 0.13)
        markers.append(Arrow(above, [ARROW_LENGTH * part for part in (*wanted, 0.0)], TARGET))
        markers.append(Arrow(below, [ARROW_LENGTH * part for part in (*motion[:2], 0.0)], ACTUAL))
    return markers
