"""Several processes on one training: how many times faster than one, and what share of the time they communicate.

Each process has one thread, or a GPU where there are two or more. A round is an iteration of each recipe by one process
and then by R; what the machine does meanwhile befalls both. What a process waits for others counts as communication.
Processor time, that of the busiest process, is what a machine without other work would need, but for the waiting.

delay_ms: what is added to each message, to see what a network would cost.
"""

from __future__ import annotations

import os
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

import torch

from experiments.benchmarks.harness import Result, interleave, ratios, report
from experiments.experiment.definition import load
from metarl import parallel
from metarl.trainer import Trainer

RECIPES = (
    "half_cheetah_dir/promp",
    "half_cheetah_dir/maml_trpo",
    "half_cheetah_dir/rl2",
    "half_cheetah_vel/pearl",
    "omniglot/maml",
)
ASKED = {
    "half_cheetah_dir/promp": 1.8,
    "half_cheetah_dir/rl2": 1.7,
    "half_cheetah_vel/pearl": 1.6,
    "omniglot/maml": 1.8,
}
_SECONDS = 0.5  # of work per measurement, at least: as many iterations as that takes


@dataclass(frozen=True)
class Settings:
    """The size of a benchmark."""

    recipes: tuple[str, ...] = RECIPES
    processes: int = 2
    num_rounds: int = 5
    delay_ms: float = 0.0  # added to each message of the processes

    def __post_init__(self) -> None:
        if self.processes < 2:
            raise ValueError(f"processes is {self.processes}; must be at least 2")
        if self.num_rounds < 1:
            raise ValueError(f"num_rounds is {self.num_rounds}; must be at least 1")
        if self.delay_ms < 0:
            raise ValueError(f"delay_ms is {self.delay_ms}; must be zero or positive")


@dataclass(frozen=True)
class Iterations:
    """Some iterations of a training, as measured by its first process; per iteration."""

    seconds: float
    processor_seconds: float  # of the busiest process
    collecting: float  # fraction of the seconds until the update begins
    communicating: float  # fraction of the seconds
    messages: float
    bytes: float


def run(settings: Settings | None = None) -> Result:
    """Measure all recipes: iterations per second by one process and by several, and the ratios."""
    settings = Settings() if settings is None else settings
    count, rounds, shares, left_out = settings.processes, {}, {}, []
    for recipe in settings.recipes:
        one, several = f"{recipe} by 1", f"{recipe} by {count}"
        measured: dict[str, list[Iterations]] = {one: [], several: []}
        try:
            with _team(1, recipe, 0.0) as alone, _team(count, recipe, settings.delay_ms) as together:
                contenders = {one: _speed(alone, measured[one]), several: _speed(together, measured[several])}
                rounds |= interleave(contenders, settings.num_rounds, warm_up=True)
        except parallel.UserError as error:
            left_out.append(f"{recipe} is left out: {error}")
            continue
        last = {name: parts[1:] for name, parts in measured.items()}
        shares[recipe] = {
            "communication_share": statistics.median(part.communicating for part in last[several]),
            "collect_share_of_one": statistics.median(part.collecting for part in last[one]),
            "messages_per_iteration": statistics.median(part.messages for part in last[several]),
            "bytes_per_iteration": statistics.median(part.bytes for part in last[several]),
            "seconds_by_one": statistics.median(part.seconds for part in last[one]),
            "seconds_by_several": statistics.median(part.seconds for part in last[several]),
            "processor_seconds_by_one": statistics.median(part.processor_seconds for part in last[one]),
            "processor_seconds_by_several": statistics.median(part.processor_seconds for part in last[several]),
        }
    compared = ratios(rounds, [f"{recipe} by {count} / {recipe} by 1" for recipe in settings.recipes])
    asked = {f"{name} by {count} / {name} by 1": least for name, least in ASKED.items()} if count == 2 else {}
    units = dict.fromkeys(rounds, "iterations/s")
    return Result("scaling", settings, units, rounds, compared, asked, shares, tuple(left_out))


def _speed(ask: Callable[[], Iterations], kept: list[Iterations]) -> Callable[[], float]:
    def measure() -> float:
        kept.append(ask())
        return 1 / kept[-1].seconds

    return measure


@contextmanager
def _team(count: int, recipe: str, delay_ms: float) -> Iterator[Callable[[], Iterations]]:
    """Processes that train a recipe together; they do some iterations at each call.

    Raises:
        UserError: when they cannot.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = torch.multiprocessing.get_context("spawn")
    ours, processes = [], []
    for index in range(count):
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, index, count, port, recipe, delay_ms), daemon=True)
        process.start()
        ours.append(here)
        processes.append(process)

    def answers() -> Iterations | None:
        results = [connection.recv() for connection in ours]
        for problem in (result for result in results if isinstance(result, str)):
            raise parallel.UserError(problem)
        return results[0]

    def ask() -> Iterations:
        for connection in ours:
            connection.send(True)
        result = answers()
        assert result is not None
        return result

    try:
        answers()
        yield ask
    finally:
        for connection in ours:
            with suppress(OSError):  # it has ended after an error
                connection.send(False)
        for process in processes:
            process.join(10)
            process.kill()


def _serve(orders: Connection, index: int, count: int, port: int, recipe: str, delay_ms: float) -> None:
    """A process of a team: iterations when it is asked for them, until it is to end."""
    ranks = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in ranks.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.device_count() >= 2 else "cpu"
    if count > 1:
        parallel.join(device)
    parallel.message_delay = delay_ms / 1000
    try:
        trainer = replace(load(recipe), device=device).trainer()
        _iterations(trainer, 1)  # the first one may collect more than others
        orders.send(None)
        num_iterations = 1
        while orders.recv():
            result = _iterations(trainer, num_iterations)
            num_iterations = parallel.exchanged(max(1, round(_SECONDS / result.seconds)))[0]
            orders.send(result)
    except parallel.UserError as error:
        orders.send(str(error))
    finally:
        parallel.leave()  # also after an error, so that no thread of gloo outlives it


def _iterations(trainer: Trainer, count: int) -> Iterations:
    parallel.spent()
    started, started_processor = time.perf_counter(), time.process_time()
    rows = [trainer.iterate() for _ in range(count)]
    seconds, processor = (time.perf_counter() - started) / count, (time.process_time() - started_processor) / count

    def mean(tag: str) -> float:
        return sum(row.get(tag, 0.0) for row in rows) / count

    tags = ("collect_share", "communication_share", "communication_messages", "communication_bytes")
    return Iterations(seconds, max(parallel.exchanged(processor)), *(mean(f"time/{tag}") for tag in tags))


def main(json: bool = False) -> None:
    """Print the speeds, the ratios and the costs of communication; one JSON object where that is asked for."""
    result = run()
    report(result, json)
    if not json:
        for recipe, costs in result.details.items():
            share, messages = costs["communication_share"], costs["messages_per_iteration"]
            less = costs["processor_seconds_by_one"] / costs["processor_seconds_by_several"]
            print(f"{recipe}: {share:.1%} of the time in {messages:.0f} messages; {less:.2f} times less processor time")
