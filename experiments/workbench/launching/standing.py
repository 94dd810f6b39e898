"""Where a run stands, read from its files: what any engine, on any machine that shares the disk, leaves there."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.workbench.launching.plan import identity
from metarl.errors import RunError
from metarl.run.directory import Run
from metarl.run.log_writers import rows_of

OUTPUT = "output.txt"  # what a launched run prints
_TAIL = 65_536  # bytes that hold the last rows of progress.json, and the last lines of output
_SCORES = ("meta_train/return/posterior", "meta_train/return/prior", "meta_train/return/total")


@dataclass(frozen=True)
class Standing:
    """How far a run is, and how well it does; None where that is not known yet."""

    iteration: int = 0
    score: float | None = None  # score of the last iteration, on training tasks
    speed: float | None = None  # samples per second
    seconds_left: float | None = None  # remaining duration of meta-training
    test_score: float | None = None  # at the last point of the adaptation curve, once the run is finished
    is_finished: bool = False


def standing(path: Path, num_iterations: int) -> Standing:
    """Where the run in this directory stands; as one not yet begun, where nothing can be read."""
    test_score, is_finished = _final(path, num_iterations)
    rows = rows_of(_tail(path / "progress.json"))
    if not rows:
        return Standing(num_iterations if is_finished else 0, test_score=test_score, is_finished=is_finished)
    row = rows[-1]
    iteration = int(row.get("time/iterations", 0))
    seconds = row.get("time/time_elapsed")
    left = None if seconds is None or not iteration else seconds / iteration * (num_iterations - iteration)
    return Standing(iteration, _score(row), row.get("time/fps"), left, test_score, is_finished)


def output_size(path: Path) -> int:
    """How much a launched run has printed so far, in bytes."""
    try:
        return (path / OUTPUT).stat().st_size
    except OSError:
        return 0


def last_lines(path: Path, since: int = 0, number: int = 5) -> list[str]:
    """The last lines that a launched run printed, of those after so many bytes."""
    new = max(0, output_size(path) - since)
    text = _tail(path / OUTPUT)[-new:].decode(errors="replace") if new else ""
    return [line.rstrip() for line in text.splitlines() if line.strip()][-number:]


def is_locked(path: Path) -> bool:
    """Whether a process is training in this run now."""
    try:
        with Run(path).lock():
            return False
    except RunError:
        return True


def existing_runs(root: Path) -> dict[str, list[Run]]:
    """All runs of families and agents below a folder by their settings' identity, those made last first."""
    runs: dict[str, list[Run]] = defaultdict(list)
    for file in sorted(root.glob("*/*/*/config.json"), key=_made_at, reverse=True):
        run = Run(file.parent)
        try:
            runs[identity(run.config())].append(run)
        except RunError:  # a damaged run goes on as nobody's
            continue
    return runs


def _final(path: Path, num_iterations: int) -> tuple[float | None, bool]:
    """The last point of the evaluation at the end of a training; and whether there is one."""
    try:
        evaluation: Any = json.loads((path / "evaluation_test.json").read_bytes())
        is_finished = evaluation["iteration"] >= num_iterations
        return (evaluation["points"][-1]["mean"] if is_finished else None), is_finished
    except (OSError, ValueError, LookupError, TypeError):
        return None, False


def _score(row: Mapping[str, float]) -> float | None:
    tags = [tag for tag in _SCORES if tag in row] or [tag for tag in row if tag.startswith("train/query_")]
    return row[tags[0]] if tags else None


def _tail(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL))
            return file.read()
    except OSError:
        return b""


def _made_at(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0
