"""One way of measuring and one record of results for all benchmarks.

Rounds are interleaved: each contender is measured once per round, so whatever else the machine does befalls all alike.
A value is a median over rounds, and a ratio the median of the rounds' ratios.
"""

from __future__ import annotations

import json as json_format
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any

from envs.simulators.cpu_count import available_cpus
from metarl.run.provenance import versions

Rounds = dict[str, list[float]]  # what was measured, by name and round


@dataclass(frozen=True)
class Result:
    """What a benchmark measured, on what machine, and whether it was enough."""

    benchmark: str
    settings: Any  # the size of the benchmark, a dataclass
    units: Mapping[str, str]  # of the values, by name: speeds, or times
    rounds: Rounds
    ratios: Mapping[str, float]  # "one / other": how many times the other's value the one's is
    asked: Mapping[str, float] = field(default_factory=dict)  # the least that a ratio should be, by its name
    details: Mapping[str, Any] = field(default_factory=dict)  # further facts, such as the number of rows by name
    left_out: tuple[str, ...] = ()  # one line for each peer that could not be compared, with the reason

    def as_json(self) -> dict[str, Any]:
        """Plain values that JSON knows."""
        return {
            "benchmark": self.benchmark,
            "machine": machine(),
            "settings": _plain(self.settings),
            "measured": {
                name: {"unit": self.units[name], "median": statistics.median(values), "rounds": values}
                for name, values in self.rounds.items()
            },
            "ratios": dict(self.ratios),
            "targets": {
                name: {"asked": least, "measured": self.ratios[name], "reached": self.ratios[name] >= least}
                for name, least in self.asked.items()
                if name in self.ratios
            },
            "details": _plain(self.details),
            "left_out": list(self.left_out),
        }


def interleave(contenders: Mapping[str, Callable[[], float]], num_rounds: int, *, warm_up: bool = False) -> Rounds:
    """Measure each contender once per round; warm_up: one more round before, which does not count."""
    rounds: Rounds = {name: [] for name in contenders}
    for index in range(num_rounds + warm_up):
        for name, measure in contenders.items():
            value = measure()
            if index >= warm_up:
                rounds[name].append(value)
    return rounds


def timed(work: Callable[[], object], repeats: int = 1) -> Callable[[], float]:
    """A contender whose value is the seconds that one call of `work` takes."""

    def measure() -> float:
        started = time.perf_counter()
        for _ in range(repeats):
            work()
        return (time.perf_counter() - started) / repeats

    return measure


def ratios(rounds: Rounds, names: Iterable[str]) -> dict[str, float]:
    """The ratios of these names, "one / other", whose two parts were measured."""
    pairs = {name: name.split(" / ") for name in dict.fromkeys(names)}
    return {
        name: statistics.median(a / b for a, b in zip(rounds[one], rounds[other], strict=True))
        for name, (one, other) in pairs.items()
        if one in rounds and other in rounds
    }


def machine() -> dict[str, Any]:
    """The processor, how busy it is, and the versions of the packages."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cpus": available_cpus(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        **versions(),
    }


def report(result: Result, json: bool) -> None:
    """Print a result as tables; as one JSON object and nothing else where that is asked for."""
    if json:
        print(json_format.dumps(result.as_json()))
        return
    from rich.console import Console

    from experiments.cli.tables import print_table

    console = Console()
    rows = [
        (name, result.units[name], *(_number(value) for value in (statistics.median(values), min(values), max(values))))
        for name, values in result.rounds.items()
    ]
    cpus = available_cpus()
    title = f"{result.benchmark}, {cpus} processor{'s' if cpus > 1 else ''}"
    print_table(title, ("measured", "unit", "median", "lowest", "highest"), rows, console, text=("measured", "unit"))
    judged = [(name, f"{ratio:.2f}", *_judged(ratio, result.asked.get(name))) for name, ratio in result.ratios.items()]
    if judged:
        columns = ("ratio", "value", "asked", "reached")
        print_table("medians of the rounds' ratios", columns, judged, console, text=("ratio",))
    known = [f"{name.replace('_', ' ')}: {value}" for name, value in result.details.items() if not _has_parts(value)]
    for line in (*known, *result.left_out):
        console.print(line, highlight=False, soft_wrap=True)


def _judged(ratio: float, asked: float | None) -> tuple[str, str]:
    return ("", "") if asked is None else (f"{asked:.2f}", "yes" if ratio >= asked else "no")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _has_parts(value: Any) -> bool:
    return isinstance(value, (Mapping, list, tuple))


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value
