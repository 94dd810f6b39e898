"""Diverged simulations: counted, and logged with task and step, at a limited rate."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from envs.simulators.log_limiter import LogLimiter
from metarl.records import Record

logger = logging.getLogger(__name__)


class Divergences:
    """The diverged simulations of B rows; `note` only writes on the device, `report` waits for it."""

    def __init__(self, family_name: str, num_rows: int, device: torch.device) -> None:
        self.count = 0  # number of reported divergences
        self._family_name = family_name
        self._log_limiter = LogLimiter()
        with torch.inference_mode(False):  # modified inside and outside inference mode
            self._times = torch.zeros(num_rows, dtype=torch.int64, device=device)  # [B], since the last report
            self._step = torch.zeros(num_rows, dtype=torch.int64, device=device)  # [B], episode step of the last one
            self._bad_action = torch.zeros(num_rows, dtype=torch.bool, device=device)  # [B], since the last report

    def note(self, diverged: Tensor, step: Tensor, bad_action: Tensor) -> None:
        """Record rows that diverged, their episode steps, and rows whose action was not finite; all [B]."""
        self._times += diverged
        self._step.copy_(torch.where(diverged, step, self._step))
        self._bad_action |= bad_action

    def report(self, tasks: Record | None) -> None:
        """Log and count the divergences since the last report; `tasks` has one task per row.

        Raises:
            ValueError: when an action was not finite, which is the caller's error.
        """
        if bool(self._bad_action.any()):
            row = int(self._bad_action.nonzero()[0])
            self._bad_action.zero_()
            self._times.zero_()
            raise ValueError(f"action of row {row} is not finite")
        times = self._times.tolist()
        for row in (row for row, number in enumerate(times) if number):
            self.count += times[row]
            if self._log_limiter.allows():
                logger.warning(
                    "%s: the simulation of row %d diverged at step %d of its episode, which is truncated; %d so far. "
                    "Task: %s",
                    self._family_name,
                    row,
                    int(self._step[row]),
                    self.count,
                    _describe(tasks, row),
                )
        self._times.zero_()


def _describe(tasks: Any, row: int) -> str:
    """One row's task in one line; `tasks` is a record, or a dict in one."""
    fields = tasks if isinstance(tasks, Mapping) else vars(tasks) if isinstance(tasks, Record) else {}
    return ", ".join(
        f"{name}={_rounded(value[row].tolist())}" if isinstance(value, Tensor) else _describe(value, row)
        for name, value in fields.items()
        if value is not None
    )


def _rounded(value: Any) -> str:
    return f"[{', '.join(map(_rounded, value))}]" if isinstance(value, list) else f"{value:.4g}"
