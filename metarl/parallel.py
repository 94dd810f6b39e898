"""One training over several processes that gives the numbers of one: shares of tasks, sums, and shared noise.

Every process holds the whole learner. Of the N tasks of an iteration, process r of R takes the tasks r, r + R, ...

- Each process draws the random numbers of all tasks and keeps those of its own (`Share.noise`): a task's noise does not
  depend on R, and one process draws what it always drew.
- Gradients, losses and counts are summed over the processes before anything is decided by them (`total`).
- Scores are gathered in the order of the tasks (`Share.gathered`).

Results differ in the last digits only, because floats are added in another order. In a run of one process, and outside
`sharing`, these functions return their arguments.

DistributedDataParallel does not fit: it ignores gradients from torch.autograd.grad, and second derivatives fail.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, rendezvous  # pyright: ignore[reportPrivateImportUsage]
from torch.utils import _pytree as pytree

from metarl import shared_memory
from metarl.errors import UserError
from metarl.noise import noise_of_all

T = TypeVar("T")

TIMEOUT = timedelta(minutes=10)  # how long a process waits for the others

_memory: shared_memory.SharedMemory | None = None  # of processes on one machine


class ProcessLost(UserError):  # noqa: N818, it is what has happened
    """Another process of the run has ended, or has not answered in time."""

    exit_status = 75  # to be tried again, as in sysexits.h


# --- the processes of a run ----------------------------------------------------------------------------------------


def is_launched() -> bool:
    """Whether torchrun, or `metarl train --processes`, has started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def join(device: str = "cpu") -> None:
    """Connect this process with the others that torchrun started: by gloo on CPUs, by NCCL on GPUs.

    Where all run on one Linux machine, sums go through memory that they share. Processes of one machine share its
    processors evenly, unless OMP_NUM_THREADS says otherwise.

    Raises:
        ProcessLost: when the others do not come within `TIMEOUT`.
    """
    on_this_machine = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if "OMP_NUM_THREADS" not in os.environ:
        threads = max(1, torch.get_num_threads() // on_this_machine)
        os.environ["OMP_NUM_THREADS"] = str(threads)  # the simulators read it
        torch.set_num_threads(threads)
    backend = "gloo"
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    index, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    with _answered():
        store, *_ = next(iter(rendezvous("env://", index, count, timeout=TIMEOUT)))
        # torchrun keeps its store when it starts the processes again: addresses of the dead must not be found in it
        fresh = PrefixStore(f"metarl/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{count}", store)
        dist.init_process_group(backend, store=fresh, rank=index, world_size=count, timeout=TIMEOUT)
    global _memory
    if count == on_this_machine and shared_memory.is_supported():
        with contextlib.suppress(OSError):
            _memory = shared_memory.SharedMemory(exchanged, TIMEOUT)


def leave() -> None:
    """End the connection with the other processes."""
    global _memory
    if _memory is not None:
        _memory.close()
        _memory = None
    if dist.is_initialized():
        dist.destroy_process_group()


def process_count() -> int:
    """The number of processes of this run, R; one if it has not joined any."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_index() -> int:
    """The number of this process, from zero. Process 0 alone writes."""
    return dist.get_rank() if process_count() > 1 else 0


def exchanged(value: T) -> list[T]:
    """The value of each process, in their order: anything that can be pickled."""
    if process_count() == 1:
        return [value]
    values: list[Any] = [None] * process_count()
    with _timed(0):
        dist.all_gather_object(values, value)
    return values


def anyone(flag: bool) -> bool:
    """Whether the flag is set in any process."""
    return bool(_sum(torch.tensor(float(flag))) > 0) if process_count() > 1 else flag


def agreed(make: Callable[[], T]) -> T:
    """What `make` returns, once it has succeeded in all processes.

    Raises:
        UserError: when it has failed so in any process; in process 0 with its message, in others with none.
    """
    if process_count() == 1:
        return make()
    try:
        made, problem = make(), None
    except UserError as error:
        made, problem = None, str(error)
    problems = [text for text in exchanged(problem) if text is not None]
    if problems:
        raise UserError(problems[0] if process_index() == 0 else "")
    return made  # pyright: ignore[reportReturnType], it has succeeded


# --- shares of tasks -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Share:
    """This process's share of N tasks: number `index`, `index + count`, ..."""

    num_tasks: int  # N, of all processes
    index: int = 0
    count: int = 1  # R, the number of processes that share; one: this process has all

    @property
    def size(self) -> int:
        """The number of this process's tasks."""
        return len(range(self.index, self.num_tasks, self.count))

    @property
    def fraction(self) -> float:
        """The fraction of all tasks that are this process's."""
        return self.size / self.num_tasks

    def own(self, values: T, dim: int = 0) -> T:
        """This process's part of a tensor or a record that has all tasks [N k, ...] along an axis, task by task."""
        if self.count == 1:
            return values
        return pytree.tree_map(lambda value: self._own(value, dim) if isinstance(value, Tensor) else value, values)

    def _own(self, values: Tensor, dim: int) -> Tensor:
        by_task = values.unflatten(dim, (self.num_tasks, values.shape[dim] // self.num_tasks))
        own = torch.arange(self.index, self.num_tasks, self.count, device=values.device)
        return by_task.index_select(dim, own).flatten(dim, dim + 1)

    def own_rows(self, rows: Tensor, num_rows: int) -> Tensor:
        """Those of all processes' rows that are this process's, by their numbers in it.

        rows: numbers below `num_rows`, a multiple of N; rows of one task are contiguous.
        """
        if self.count == 1:
            return rows
        copies = num_rows // self.num_tasks
        task = rows // copies
        mine = task % self.count == self.index
        return (task // self.count * copies + rows % copies)[mine]

    def gathered(self, values: T, dim: int = 0) -> T:
        """The values of all tasks, in their order; `values` has those of this process's tasks along an axis."""
        if self.count == 1:
            return values
        return self._ordered(exchanged(values), dim)

    def _ordered(self, parts: Sequence[T], dim: int) -> T:
        numbers = torch.cat([torch.arange(index, self.num_tasks, self.count) for index in range(self.count)])
        order = numbers.argsort()

        def joined(*values: Any) -> Any:
            if not isinstance(values[0], Tensor):
                return values[0]
            copies = sum(value.shape[dim] for value in values) // self.num_tasks
            by_task = torch.cat(values, dim).unflatten(dim, (self.num_tasks, copies))
            return by_task.index_select(dim, order.to(by_task.device)).flatten(dim, dim + 1)

        return pytree.tree_map(joined, parts[0], *parts[1:])

    def noise(self, dim: int = 0) -> AbstractContextManager[Any]:
        """A context in which what is drawn for this process's tasks is drawn for all, and the others' is dropped.

        dim: the axis of the tasks in what is drawn, task by task. See `metarl.noise.noise_of_all`.
        """
        return nullcontext() if self.count == 1 else noise_of_all(self, dim)


_current: ContextVar[Share | None] = ContextVar("share", default=None)
_in_step: ContextVar[bool] = ContextVar("in_step", default=False)


@contextmanager
def sharing(num_tasks: int) -> Iterator[Share]:
    """The context in which the processes of the run share N tasks; all of them must enter it.

    If there are fewer tasks than processes, each process has all of them.
    """
    count = process_count()
    share = Share(num_tasks, process_index(), count) if num_tasks >= count else Share(num_tasks)
    token = _current.set(share)
    try:
        yield share
    finally:
        _current.reset(token)


def current() -> Share | None:
    """The current share; None outside `sharing`."""
    return _current.get()


def is_shared() -> bool:
    """Whether tasks are shared here, by more than one process."""
    share = current()
    return share is not None and share.count > 1


def fraction() -> float:
    """The fraction of the tasks that are this process's; one where they are not shared."""
    share = current()
    return 1.0 if share is None else share.fraction


def shared_noise(dim: int = 0) -> AbstractContextManager[Any]:
    """`Share.noise` of the current share; without one, random numbers are drawn as usual."""
    share = current()
    return nullcontext() if share is None else share.noise(dim)


def total(values: Tensor) -> Tensor:
    """The sum of the processes' tensors, the same bits in all of them; the tensor itself where tasks are not shared."""
    if not is_shared():
        return values
    return _sum(values.detach().clone(memory_format=torch.contiguous_format))


def _sum(values: Tensor) -> Tensor:
    with _timed(values.numel() * values.element_size()):
        if _memory is not None and values.device.type == "cpu":
            _memory.sum_(values)
        else:
            dist.all_reduce(values)
    return values


def total_number(value: float) -> float:
    """The sum of the processes' numbers; the number itself where tasks are not shared."""
    return float(total(torch.tensor(value, dtype=torch.float64))) if is_shared() else value


def share_of_mean(values: Tensor) -> Tensor:
    """This process's term of a mean over all tasks, from the mean over its own tasks; differentiable."""
    return values * fraction() if is_shared() else values


def mean_over_tasks(values: Tensor) -> Tensor:
    """The mean over the leading axis, which has a task's values each, of all processes' tasks; not differentiable."""
    return total(share_of_mean(values.mean(0)))


def sum_gradients(parameters: Sequence[Tensor]) -> None:
    """Replace each parameter's gradient by the sum of the processes', in one message. None where no process has one."""
    if not is_shared() or not parameters:
        return
    grads = [parameter.grad for parameter in parameters]
    has_grad = torch.tensor([float(grad is not None) for grad in grads], device=parameters[0].device)
    parts = [
        torch.zeros_like(parameter) if grad is None else grad for parameter, grad in zip(parameters, grads, strict=True)
    ]
    flat = total(torch.cat([has_grad, *(part.flatten() for part in parts)]))
    sums = flat[len(parts) :].split([part.numel() for part in parts])
    for parameter, part, summed, anywhere_has in zip(parameters, parts, sums, flat[: len(parts)].tolist(), strict=True):
        if anywhere_has:
            part.copy_(summed.view_as(part))  # in place: the gradient keeps its layout in memory
            parameter.grad = part


def mean_metrics(metrics: dict[str, float]) -> dict[str, float]:
    """Means over all tasks, from the means over each process's tasks; what is equal in all processes stays as it is."""
    if not is_shared():
        return metrics
    parts = exchanged((fraction(), metrics))
    first = parts[0][1]
    return {name: first[name] + sum(f * (other[name] - first[name]) for f, other in parts) for name in first}


# --- steps that all processes take together ------------------------------------------------------------------------


@contextmanager
def in_step(needed: bool) -> Iterator[bool]:
    """The context in which the processes take each step of their environments together, if that is needed.

    It is needed where episodes end at different times: when any row of any process has ended, all draw new starts.
    Yields whether they step together.
    """
    together = needed and is_shared()
    token = _in_step.set(together)
    try:
        yield together
    finally:
        _in_step.reset(token)


def anywhere(mask: Tensor) -> bool:
    """Whether an entry is true; in any process, where they step together."""
    found = bool(mask.any())
    return anyone(found) if _in_step.get() else found


def align(*generators: torch.Generator) -> None:
    """Give all processes the random streams of the first one.

    They differ only after a simulation has diverged in one process, which then alone has drawn a new start.
    """
    if not is_shared():
        return
    for generator in generators:
        state = generator.get_state()
        with _timed(state.numel()):
            dist.broadcast(state, 0)
        generator.set_state(state)


# --- what it costs -------------------------------------------------------------------------------------------------


@dataclass
class Cost:
    """The messages of this process, their size, and the time until all processes had them."""

    messages: int = 0
    bytes: int = 0
    seconds: float = 0.0


message_delay = 0.0  # seconds that are added to each message, to simulate a network
_cost = Cost()


def spent() -> Cost:
    """The cost of communication since the last call."""
    global _cost
    cost, _cost = _cost, Cost()
    return cost


@contextmanager
def _timed(num_bytes: int) -> Iterator[None]:
    """A context whose message of this size, and the wait for it, is counted."""
    started = time.perf_counter()
    with _answered():
        yield
    if message_delay:
        time.sleep(message_delay)
    _cost.messages += 1
    _cost.bytes += num_bytes
    _cost.seconds += time.perf_counter() - started


@contextmanager
def _answered() -> Iterator[None]:
    """A context in which a lost connection or a timeout raises ProcessLost."""
    try:
        yield
    except (RuntimeError, dist.DistError) as error:
        what = " ".join(str(error).split())[:200]
        raise ProcessLost(f"another process of this run has ended, or gave no answer for {TIMEOUT}: {what}") from error
