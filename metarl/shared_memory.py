"""Sums over the processes of one machine through memory that they share, which gloo sends through sockets.

A sum of a few numbers takes some ten microseconds; by gloo, whose own threads must be woken beside busy processes, it
takes .3 to 4 ms. The sums are the same bits in all processes, as all add the same numbers in the same order.

Every process writes its numbers into its slot, says so, and reads all slots once all have said so. Messages alternate
between two sets of slots: a slot is written again only after all have said that they have begun the message after it.
"""

from __future__ import annotations

import os
import platform
import select
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

_SLOT = 2**20  # bytes; longer tensors are summed in parts
_FLAG = 8  # int64 numbers per flag, so that each has a line of the processor's cache of its own
_PATIENCE = 0.02  # seconds for which a process waits awake


def is_supported() -> bool:
    """Whether processes of this machine can share memory so: on Linux, on processors that keep the order of writes."""
    return hasattr(os, "memfd_create") and hasattr(os, "pidfd_open") and platform.machine() in ("x86_64", "AMD64")


class SharedMemory:
    """The memory of R processes of one machine."""

    def __init__(self, exchanged: Callable[[Any], Sequence[Any]], timeout: timedelta) -> None:
        """To be called by all processes at once. exchanged: returns the value of each process, in their order.

        Raises:
            OSError: in all processes, when one of them cannot have the memory.
        """
        self._timeout = timeout.total_seconds()
        pids = list(exchanged(os.getpid()))
        self._index, count = pids.index(os.getpid()), len(pids)
        self._number = 0  # of the message
        self._others: list[int] = []
        num_bytes = 2 * count * _SLOT + count * _FLAG * 8
        fd = _anonymous_file(num_bytes) if self._index == 0 else -1
        path = exchanged(f"/proc/{os.getpid()}/fd/{fd}")[0]
        try:
            memory = torch.from_file(path, shared=True, size=num_bytes, dtype=torch.uint8)
            self._others = [os.pidfd_open(pid) for pid in pids if pid != os.getpid()]
            problem = None
        except (OSError, RuntimeError) as error:
            memory, problem = torch.zeros(num_bytes, dtype=torch.uint8), str(error)
        self._slots = memory[: 2 * count * _SLOT].view(2, count, _SLOT)
        self._flags: Any = memory[2 * count * _SLOT :].view(torch.int64).view(count, _FLAG)[:, 0].numpy()
        problems = [text for text in exchanged(problem) if text is not None]
        if fd >= 0:
            os.close(fd)  # all have the memory, which lasts as long as they do
        if problems:
            self.close()
            raise OSError(problems[0])

    def close(self) -> None:
        for other in self._others:
            os.close(other)
        self._others = []

    def sum_(self, values: Tensor) -> None:
        """Replace a contiguous tensor by the sum of the processes' tensors.

        Raises:
            RuntimeError: when a process has ended, or does not answer in time.
        """
        for part in values.view(-1).split(_SLOT // values.element_size()):
            self._number += 1
            slots = self._slots[self._number % 2, :, : part.numel() * part.element_size()].view(part.dtype)
            slots[self._index] = part
            self._flags[self._index] = self._number
            self._wait()
            torch.sum(slots, 0, out=part)

    def _wait(self) -> None:
        """Wait until all processes have come to this message."""
        if self._flags.min() >= self._number:
            return
        started = time.perf_counter()
        while self._flags.min() < self._number:
            waited = time.perf_counter() - started
            if waited < _PATIENCE:
                os.sched_yield()
                continue
            ended, _, _ = select.select(self._others, [], [], 0.001)  # readable once a process has ended
            if ended and self._flags.min() < self._number:
                raise RuntimeError("a process has ended")
            if waited > self._timeout:
                raise RuntimeError("no answer")


def _anonymous_file(num_bytes: int) -> int:
    """A file in memory, without a name; -1 where there can be none."""
    try:
        fd = os.memfd_create("metarl")
        os.ftruncate(fd, num_bytes)
    except OSError:
        return -1
    return fd
