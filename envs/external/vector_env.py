"""The vectorised environment behind third-party Gymnasium environments: tensors in and out, whatever crashes."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from envs.external import CrashedTooOften
from envs.external.rows import Probed
from envs.external.workers import RowsHolder, WorkerDied
from envs.rows import one_task_per_row, replace_tasks
from envs.simulators.log_limiter import LogLimiter
from metarl.checks import at_least
from metarl.records import Record, Step

logger = logging.getLogger(__name__)

Values = Mapping[str, Any]  # a task as plain values by name, as a worker process is told it


class ThirdPartyEnv:
    """B rows of a third-party environment on some worker processes; implements `metarl.protocols.VectorEnv`.

    Each `reset` seeds every row from the generator: the environment, its spaces, and the global streams of numpy,
    Python and torch during its steps. Results do not depend on the number of workers. A row whose environment raises,
    hangs or takes its process with it ends its episode as truncated, with a zero reward and the observation and metrics
    of the step before, and starts a new one in a new environment; so do all rows of a process that is gone. This is
    logged as a warning with the row, the task and the reason, and counted in `num_diverged`.
    """

    def __init__(
        self,
        name: str,
        probed: Probed,
        num_rows: int,
        num_workers: int,
        hold: Callable[[int], RowsHolder],
        values_of: Callable[[Any], list[Values]],
        max_crashes: int,
        metrics: tuple[str, ...] | None,
        generator: torch.Generator,
    ) -> None:
        """
        hold: starts a worker with a number of rows. values_of: tasks with leading axis N as N times plain values. Other
        settings are those of `GymnasiumFamily`.
        """
        self.num_rows, self.device = num_rows, generator.device
        at_least(self, 1, "num_rows")
        self.observation_space, self.action_space = probed.observation_space, probed.action_space
        self.metric_names = probed.metric_names if metrics is None else metrics
        self._tells_unreported = metrics is None
        self.num_diverged = 0  # episodes that were cut short by a crash
        self._name, self._max_crashes, self._generator = name, max_crashes, generator
        self._hold_rows, self._values_of = hold, values_of
        self._seconds_per_step = probed.seconds_per_step
        edges = np.linspace(0, num_rows, min(max(num_workers, 1), num_rows) + 1).astype(int).tolist()
        self._groups = [range(start, end) for start, end in pairwise(edges)]
        self._holders: list[RowsHolder] = []
        self._close = weakref.finalize(self, _stop, self._holders)
        for group in self._groups:
            self._holders.append(self._hold(group))
        self._log_limiter = LogLimiter()
        self._tasks: Any = None  # a record, one task a row
        self._values: list[Values] = []  # the same as plain values, by row
        self._seeds = np.zeros(num_rows, dtype=np.int64)
        self._obs = np.zeros((num_rows, *self.observation_space.shape), dtype=np.float32)  # to act on
        self._metrics = np.zeros((num_rows, len(self.metric_names)), dtype=np.float32)  # of each row's last step
        self._unreported: set[str] = set()  # numbers of `info` that are not among the metrics
        self._starts = np.zeros(num_rows, dtype=np.int64)  # of seeded episodes since the last reset
        self._crashes = np.zeros(num_rows, dtype=np.int64)  # since the last episode that ended well
        self._lost = np.zeros(num_rows, dtype=bool)  # rows whose episode is gone, which their next step will tell

    def reset(self, tasks: Record) -> Step:
        """Give the rows their tasks, B / N contiguous rows each, and start a first episode in each.

        Raises:
            ValueError: when the number of tasks does not divide the number of rows.
            CrashedTooOften: when a row has, in succession.
        """
        self._tasks = one_task_per_row(tasks, self.num_rows)
        self._values = self._values_of(self._tasks)
        seeds = torch.randint(2**31 - 1, (self.num_rows,), generator=self._generator, device=self.device)
        self._seeds = seeds.cpu().numpy()
        self._starts[:], self._lost[:], self._metrics[:] = 0, False, 0.0
        self._start(np.arange(self.num_rows))
        return self._step(self._obs, self._obs, *(np.zeros(self.num_rows, dtype) for dtype in (np.float32, bool, bool)))

    def step(self, action: Tensor, active: Tensor | None = None) -> Step:
        """One step of all rows, or of those where `active` [B] is true; see `VectorEnv.step`.

        Raises:
            ValueError: when `action` has not the shape of a batch of actions.
            RuntimeError: when called before `reset`.
            CrashedTooOften: when a row has, in succession.
        """
        if self._tasks is None:
            raise RuntimeError("step was called before reset: the rows have no tasks yet")
        shape = (self.num_rows, *(self.action_space.shape or ()))
        if action.shape != shape:
            raise ValueError(f"action has shape {tuple(action.shape)}; must be {shape}")
        actions = action.detach().cpu().numpy()
        chosen = np.ones(self.num_rows, dtype=bool) if active is None else active.cpu().numpy()
        next_obs, reward = self._obs.copy(), np.zeros(self.num_rows, dtype=np.float32)
        terminated, truncated = np.zeros(self.num_rows, dtype=bool), np.zeros(self.num_rows, dtype=bool)
        simulated = chosen & ~self._lost
        for group, holder in zip(self._groups, self._holders, strict=True):
            rows = slice(group.start, group.stop)
            holder.ask("step_rows", actions[rows], simulated[rows])
        crashes: dict[int, str] = {}
        for index, group in enumerate(self._groups):
            try:
                *answers, errors, unreported = self._holders[index].answer()
            except WorkerDied as death:
                self._bury(index, death, simulated, crashes)
                continue
            inside = np.flatnonzero(simulated[group.start : group.stop])
            arrays = (self._obs, next_obs, reward, terminated, truncated)
            for array, answer in zip(arrays, answers[:-1], strict=True):
                array[group.start + inside] = answer[inside]
            measured = [row for row in inside.tolist() if row not in errors]
            self._metrics[[group.start + row for row in measured]] = answers[-1][measured]
            crashes |= {group.start + row: text for row, text in errors.items()}
            self._tell_unreported(unreported)
        self._crashes[(terminated | truncated) & ~self._is_among(crashes)] = 0
        cut_short = chosen & (self._lost | self._is_among(crashes)) & ~terminated & ~truncated
        truncated |= cut_short
        self.num_diverged += int(cut_short.sum())
        self._report(crashes)
        again = (cut_short | self._is_among(crashes)).nonzero()[0]
        self._lost[again] = False
        self._start(again)
        return self._step(self._obs, next_obs, reward, terminated, truncated)

    def restart(self, tasks: Record, rows: Tensor) -> Tensor:
        """Start an episode where `rows` [B] (bool) is true, each in its own of `tasks` [B]; the other rows continue.

        Returns what to act on, [B, O]. Raises what `step` does.
        """
        if self._tasks is None:
            raise RuntimeError("restart was called before reset")
        self._tasks = replace_tasks(self._tasks, tasks, rows)
        self._values = self._values_of(self._tasks)
        chosen = rows.cpu().numpy()
        self._lost &= ~chosen
        self._start(np.flatnonzero(chosen))
        return torch.from_numpy(self._obs.copy()).to(self.device)

    def close(self) -> None:
        """Close the environments and end the worker processes, as happens too when this object is collected."""
        self._close()

    def image(self, row: int) -> Any:
        """What a row's environment renders, before any reset.

        Raises:
            RuntimeError: when called before `reset`, or it cannot render on this machine.
        """
        if self._tasks is None:
            raise RuntimeError("render was called before reset: the rows have no tasks yet")
        index = next(index for index, group in enumerate(self._groups) if row in group)
        self._holders[index].ask("image", row - self._groups[index].start)
        try:
            image, error = self._holders[index].answer()
        except WorkerDied as death:
            self._bury(index, death, self._is_among([row]), {})
            image, error = None, str(death)
        if error is not None:
            raise RuntimeError(f"{self._name} cannot render here: {error}")
        return image

    def _hold(self, group: range) -> RowsHolder:
        """Start the worker processes.

        Raises:
            CrashedTooOften: when a worker process does not start.
        """
        try:
            return self._hold_rows(len(group))
        except WorkerDied as death:
            raise CrashedTooOften(f"{self._name}: {death}") from death

    def _start(self, rows: NDArray[np.int64]) -> None:
        """Start an episode in these rows, again and again where that crashes."""
        while len(rows):
            asked = []
            for index, group in enumerate(self._groups):
                mine = [row for row in rows.tolist() if row in group]
                if mine:
                    tasks, seeds = [self._values[row] for row in mine], [self._new_seed(row) for row in mine]
                    self._holders[index].ask("start_rows", [row - group.start for row in mine], tasks, seeds)
                    asked.append((index, mine))
            crashes: dict[int, str] = {}
            for index, mine in asked:
                group = self._groups[index]
                try:
                    obs, errors = self._holders[index].answer()
                except WorkerDied as death:
                    self._bury(index, death, self._is_among(mine), crashes)
                    crashes |= {row: "" for row in mine if row not in crashes}  # they begin again, unreported
                    continue
                self._obs[mine] = obs[[row - group.start for row in mine]]
                crashes |= {group.start + row: text for row, text in errors.items()}
            self._report({row: text for row, text in crashes.items() if text})
            self._lost[list(crashes)] = False
            rows = np.array(sorted(crashes), dtype=np.int64)

    def _bury(self, index: int, death: WorkerDied, at_work: NDArray[np.bool_], crashes: dict[int, str]) -> None:
        """A new worker for one that is gone; all its rows are lost, and those that it may have failed at noted."""
        group = self._groups[index]
        guilty = [group.start + death.row] if death.row is not None else [row for row in group if at_work[row]]
        crashes |= {row: str(death) for row in guilty}
        self._lost[group.start : group.stop] = True
        self._holders[index] = self._hold(group)

    def _report(self, crashes: Mapping[int, str]) -> None:
        """Log and count crashes.

        Raises:
            CrashedTooOften: when a row has crashed too often in succession.
        """
        for row, text in crashes.items():
            self._crashes[row] += 1
            task = ", ".join(f"{name}={_in_short(value)}" for name, value in self._values[row].items())
            if self._crashes[row] >= self._max_crashes:
                times = f"{self._crashes[row]} times in succession, the last time with"
                raise CrashedTooOften(f"{self._name}: row {row} crashed {times}: {text}. Task: {task}")
            if self._log_limiter.allows():
                logger.warning(
                    "%s: row %d crashed: %s. It starts afresh; %d crashes so far. Task: %s",
                    self._name, row, text, self._log_limiter.count, task,
                )  # fmt: skip

    def _tell_unreported(self, names: set[str]) -> None:
        """Warn once of each number in `info` that is not reported."""
        new = sorted(names - self._unreported)
        self._unreported |= names
        if new and self._tells_unreported:
            logger.warning(
                "%s: info has %s, which its first step did not have: metrics=%s reports it too",
                self._name, ", ".join(new), (*self.metric_names, *new),
            )  # fmt: skip

    def _new_seed(self, row: int) -> int:
        """Of an episode after a reset, or after a crash; each time another."""
        self._starts[row] += 1
        return int(np.random.SeedSequence([int(self._seeds[row]), int(self._starts[row])]).generate_state(1)[0])

    def _is_among(self, rows: Any) -> NDArray[np.bool_]:
        among = np.zeros(self.num_rows, dtype=bool)
        among[list(rows)] = True
        return among

    def _step(self, *arrays: NDArray[Any]) -> Step:
        measured = (self._metrics,) if self.metric_names else ()
        return Step(*(torch.from_numpy(array.copy()).to(self.device) for array in (*arrays, *measured)))


class VisibleThirdPartyEnv(ThirdPartyEnv):
    """One that renders; `metarl.protocols.Renders` too."""

    @property
    def seconds_per_step(self) -> float:
        return self._seconds_per_step or 1 / 20

    def render(self, row: int = 0) -> NDArray[np.uint8]:
        """[H, W, 3], see `image`."""
        return self.image(row)


def _in_short(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{' '.join(map(_in_short, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _stop(holders: Sequence[RowsHolder]) -> None:
    for holder in holders:
        holder.stop()
