"""Queues that give back values late, each row by a number of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from envs.rows import where_row


class DelayLine:
    """B queues of different lengths."""

    def __init__(self, lengths: Tensor, start: Tensor) -> None:
        """`lengths` [B] int64, in steps. `start` [B, ...] initially fills the queues."""
        self._lengths, self._rows = lengths, torch.arange(len(lengths), device=lengths.device)
        places = int(lengths.max()) + 1  # synchronises with the device, but only at resets
        self._queue = start[:, None].expand(len(start), places, *start.shape[1:]).clone()  # [B, places, ...]

    def push(self, values: Tensor, active: Tensor | None) -> Tensor:
        """Push values [B, ...] into the queues of active rows; returns the output of all queues."""
        pushed = torch.cat([values[:, None], self._queue[:, :-1]], dim=1)
        self._queue = pushed if active is None else where_row(active, pushed, self._queue)
        return self.latest()

    def set_lengths(self, lengths: Tensor, rows: Tensor) -> None:
        """Set new lengths [B] for `rows` [B] (bool), which must be refilled afterwards."""
        self._lengths = torch.where(rows, lengths, self._lengths)
        missing = int(self._lengths.max()) + 1 - self._queue.shape[1]
        if missing > 0:
            self._queue = torch.cat([self._queue, self._queue[:, -1:].repeat_interleave(missing, dim=1)], dim=1)

    def restart(self, values: Tensor, rows: Tensor) -> None:
        """Fill the queues of `rows` [B] (bool) with values [B, ...]."""
        self._queue = where_row(rows, values[:, None].expand_as(self._queue), self._queue)

    def latest(self) -> Tensor:
        """The last output: [B, ...]."""
        return self._queue[self._rows, self._lengths]
