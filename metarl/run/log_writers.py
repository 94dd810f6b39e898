"""A run's progress as files, row by row: what they are written by, and what of them can be read back."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stable_baselines3.common.logger import Logger

STEP_TAG = "time/total_timesteps"  # the tag that orders all rows: environment steps so far


def open_logger(path: Path, forget_after: int | None) -> Logger:
    """Stable-baselines3's logger, appending to what is there; TensorBoard is told to forget later steps."""
    from stable_baselines3.common.logger import CSVOutputFormat, JSONOutputFormat, Logger, TensorBoardOutputFormat
    from torch.utils.tensorboard.writer import SummaryWriter

    # These formats empty the file they open, so they open nothing and are then given a file to append to.
    as_json, as_csv = JSONOutputFormat(os.devnull), CSVOutputFormat(os.devnull)
    as_json.close()
    as_csv.close()
    (path / "progress.csv").touch()
    as_json.file = (path / "progress.json").open("a")
    as_csv.file = (path / "progress.csv").open("r+")
    header = as_csv.file.readline().rstrip("\n")
    as_csv.keys = header.split(",") if header else []
    as_csv.file.seek(0, os.SEEK_END)
    as_events = TensorBoardOutputFormat(str(path))
    if forget_after is not None:
        as_events.writer.close()
        as_events.writer = SummaryWriter(str(path), purge_step=forget_after + 1)
    return Logger(str(path), [as_json, as_csv, as_events])


def rows_of(content: bytes) -> list[dict[str, float]]:
    """The rows in progress.json, without lines that are none."""
    rows = (_row(line) for line in content.splitlines())
    return [row for row in rows if row is not None]


def _row(line: bytes) -> dict[str, float] | None:
    """One line of progress.json; None for what is no row, as a kill in the middle of a write leaves it."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and type(row.get(STEP_TAG)) in (int, float) else None


def csv_of(rows: list[dict[str, float]]) -> str:
    """The rows as progress.csv, with every tag that one of them has."""
    columns = list(dict.fromkeys(tag for row in rows for tag in row))
    lines = [",".join(columns)] + [",".join(str(row.get(tag, "")) for tag in columns) for row in rows]
    return "\n".join(lines) + "\n" if rows else ""
