"""Runs to compare: read from their files, grouped by what differs between them besides the seed, and comparable."""

from __future__ import annotations

import glob
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from metarl.errors import RunError, UserError
from metarl.run.directory import Run
from metarl.run.files import reason
from metarl.statistics import Scores

PLAIN_NAME = r"(_\d+x\d+_i\d+_s\d+)?\.json"  # of an evaluation under the settings of the training
_OF_POINTS = ("what a point of the curve counts", "number of points", "experience before each point")
_UNCOMPARED = ("experiment", "seed", "device", "expected")  # of a config: what makes no other experiment


@dataclass(frozen=True)
class EvaluatedRun:
    """A run with the evaluation that is compared."""

    path: Path
    settings: dict[str, Any]  # by dotted name, the seed among them
    evaluation: dict[str, Any]
    scores: Scores  # [N, points], N test tasks
    rows: list[dict[str, float]]  # the log of its training

    @property
    def seed(self) -> int:
        return self.settings["seed"]

    @property
    def experience(self) -> list[int] | None:
        """Episodes of experience in the task before each point; None where points count no episodes."""
        return self.evaluation.get("experience") or None


@dataclass(frozen=True)
class Group:
    """Runs that differ only in the seed, or in what they are not grouped by."""

    label: str
    runs: list[EvaluatedRun]  # by seed
    missing: list[int] = field(default_factory=list)  # seeds that other groups have

    @property
    def scores(self) -> Scores:
        """[K, N, points]: seeds, tasks and points of the adaptation curve."""
        return np.stack([run.scores for run in self.runs])


@dataclass(frozen=True)
class Runs:
    """All groups, in the order of their labels."""

    groups: list[Group]
    split: str
    unfinished: list[Path]  # runs that have no evaluation on the split
    notes: list[str]  # what a reader must know to judge the comparison
    same_tasks: bool = True  # whether all were evaluated on the same tasks
    by_experience: bool = False  # whether points are compared by the episodes of experience that come before them

    @property
    def measure(self) -> dict[str, Any]:
        return self.groups[0].runs[0].evaluation["measure"]

    @property
    def family(self) -> str:
        return self.groups[0].runs[0].evaluation["family"]


def read_runs(patterns: Sequence[str], split: str, by: str | None = None) -> Runs:
    """The runs that directories or patterns name, grouped and ready to be compared.

    A directory stands for all runs below it where it is none itself. by: "agent", "family" or the dotted name of a
    field; None: whatever differs but the seed.

    Raises:
        UserError: when a run cannot be read, or the runs cannot be compared; names what differs.
    """
    paths = paths_of(patterns)
    found = {path: _read(Run.open(path), split) for path in paths}
    unfinished = [path for path in paths if not found[path]]
    if len(unfinished) == len(paths):
        raise UserError(f"none of {len(paths)} runs has an evaluation on the split {split}")
    runs = sorted(_largest_shared([runs for runs in found.values() if runs]), key=lambda run: (run.seed, str(run.path)))
    other_tasks, other_points = _check_comparable(runs, by)
    groups = _labelled(runs, by)
    groups, doubles = _one_per_seed(groups) if by is None else (groups, [])
    for group in groups:
        _check_points(group)
    seeds = sorted({run.seed for group in groups for run in group.runs})
    for_all = [Group(group.label, group.runs, _missing(group, seeds)) for group in groups]
    notes = [*other_tasks, *_of_experience(groups, other_points), *doubles]
    return Runs(for_all, split, unfinished, notes, not other_tasks, bool(other_points))


def paths_of(patterns: Sequence[str]) -> list[Path]:
    """The run directories that paths and patterns name, each once.

    A directory stands for all runs below it where it is none itself. What is no run is left for its reader to refuse.
    """
    return sorted({path.resolve(): path for pattern in patterns for path in _matching(pattern)}.values())


def _matching(pattern: str) -> list[Path]:
    found = [Path(name) for name in glob.glob(pattern, recursive=True)] or [Path(pattern)]
    runs: list[Path] = []
    for path in found:
        below = [] if (path / "config.json").is_file() else [file.parent for file in path.glob("**/config.json")]
        if below or (path / "config.json").is_file() or len(found) == 1:
            runs += below or [path]
    return runs


def _largest_shared(found: Sequence[Sequence[EvaluatedRun]]) -> list[EvaluatedRun]:
    """Of the evaluations of each run, that on the most tasks among those on tasks that all runs were evaluated on."""
    shared = set.intersection(*({run.evaluation["tasks_hash"] for run in runs} for runs in found))
    of_all = [[run for run in runs if run.evaluation["tasks_hash"] in shared] or runs for runs in found]
    return [max(runs, key=lambda run: (len(run.scores), run.evaluation["tasks_hash"])) for runs in of_all]


def _read(run: Run, split: str) -> list[EvaluatedRun]:
    """A run with each of its evaluations on a split, under the settings and at the end of its training.

    Raises:
        RunError: when a file of it cannot be read, or all its evaluations are of an earlier version.
    """
    config = run.config()
    try:
        settings = flat({key: value for key, value in config.items() if key != "expected"})
        num_iterations = config["train"]["num_iterations"]
    except (KeyError, TypeError) as error:
        raise RunError(f"{run.path}/config.json lacks {error}") from error
    rows = run.progress()
    earlier: Path | None = None  # an evaluation of an earlier version
    found: list[EvaluatedRun] = []
    for file in sorted(run.path.glob(f"evaluation_{split}*.json")):
        if re.fullmatch(f"evaluation_{split}{PLAIN_NAME}", file.name) is None:
            continue
        try:
            evaluation = json.loads(file.read_bytes())
            if evaluation["iteration"] != num_iterations or evaluation.get("checkpoint", "latest") != "latest":
                continue
            if not evaluation.get("per_task") or not evaluation.get("tasks_hash"):
                earlier = file
                continue
            scores = np.array(evaluation["per_task"]["scores"], dtype=float).T
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"cannot read {file}: {_reason(error)}") from error
        if not np.isfinite(scores).all():
            raise RunError(f"{file} has scores that are not finite: the learner diverged on some tasks")
        found.append(EvaluatedRun(run.path, settings, evaluation, scores, rows))
    if earlier is not None and not found:
        raise RunError(
            f"{earlier} lacks the scores by task or the hash of the tasks, as it is of an earlier version; "
            f"make another with: metarl evaluate {run.path} --split {split}"
        )
    return found


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        path = f"{prefix}{name}"
        found |= flat(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return found


def _check_comparable(runs: Sequence[EvaluatedRun], by: str | None) -> tuple[list[str], list[str]]:
    """Notes on what differs between the tasks of groups, where that is what is compared, and between their points.

    Points may differ where all of them count episodes of experience in the task: those of RL2, MAML and PEARL.

    Raises:
        UserError: when runs differ in anything that makes their scores another quantity.
    """
    differences = []
    compared = by == "family" or (by or "").startswith("family.")
    for what, of in _conditions(runs).items():
        values = {json.dumps(of(run)): run for run in runs}
        if len(values) > 1:
            (one, first), (other, second) = list(values.items())[:2]
            differences.append((what, f"{what} is {one} in {first.path} and {other} in {second.path}"))
    have_experience = all(run.experience is not None for run in runs)
    tasks = [text for what, text in differences if compared and (what.startswith("family") or what == "test tasks")]
    points = [text for what, text in differences if have_experience and what in _OF_POINTS]
    refused = [text for _, text in differences if text not in (*tasks, *points)]
    if refused:
        raise UserError(f"these runs cannot be compared: {'; '.join(refused[:3])}")
    return [f"not the same tasks: {text}" for text in tasks], points


def _check_points(group: Group) -> None:
    """Check that the curves of a group have the same points.

    Raises:
        UserError: when they have not; names two runs.
    """
    first, *others = group.runs
    for other in others:
        if other.scores.shape != first.scores.shape or other.experience != first.experience:
            raise UserError(
                f"these runs cannot be one group, {group.label}: the points of {first.path} and {other.path} differ"
            )


def _of_experience(groups: Sequence[Group], differences: Sequence[str]) -> list[str]:
    """A note on how much experience comes before the last point of each group, where that differs."""
    if not differences:
        return []
    before = ", ".join(f"{(group.runs[0].experience or [0])[-1]} in {group.label}" for group in groups)
    return [f"episodes of experience in the task before the last point: {before}"]


def _conditions(runs: Sequence[EvaluatedRun]) -> dict[str, Callable[[EvaluatedRun], Any]]:
    """What must be equal in all runs, by the name that a message gives it."""
    names = sorted({name for run in runs for name in run.settings if name.startswith("family.")})
    have_experience = all(run.experience is not None for run in runs)  # evaluations of earlier versions do not say
    conditions: dict[str, Callable[[EvaluatedRun], Any]] = {"family": lambda run: run.evaluation["family"]}
    conditions |= {name: lambda run, name=name: run.settings.get(name) for name in names}
    return conditions | {
        "measure": lambda run: run.evaluation["measure"]["name"],
        _OF_POINTS[0]: lambda run: run.evaluation["measure"]["point"],
        _OF_POINTS[1]: lambda run: run.scores.shape[1],
        _OF_POINTS[2]: lambda run: run.experience if have_experience else None,
        "normalisation": lambda run: run.evaluation["facts"].get("normalisation"),
        "number of test tasks": lambda run: run.scores.shape[0],
        "test tasks": lambda run: run.evaluation["tasks_hash"],
    }


def _labelled(runs: Sequence[EvaluatedRun], by: str | None) -> list[Group]:
    """Groups by what differs, named by it, or by their recipes where each has its own; in the order of the names."""
    if by in ("agent", "family"):
        return _grouped(runs, lambda run: str(run.evaluation[by]))
    if by is not None:
        name = by.replace("-", "_")
        if not any(name in run.settings for run in runs):
            raise UserError(f"--by is {by!r}; no run has that field: give agent, family or a field such as agent.gamma")
        return _grouped(runs, lambda run: f"{name}={run.settings.get(name)}")

    def key(run: EvaluatedRun) -> str:
        return json.dumps({name: value for name, value in run.settings.items() if name not in _UNCOMPARED})

    recipes = {(key(run), PurePath(str(run.settings["experiment"])).stem) for run in runs}
    if len(recipes) == len(dict(recipes)) == len({name for _, name in recipes}) > 1:  # each group is a recipe's own
        name_of = dict(recipes)
        return _grouped(runs, lambda run: name_of[key(run)])
    by_agent: dict[str, list[EvaluatedRun]] = defaultdict(list)
    for run in runs:
        by_agent[run.evaluation["agent"]].append(run)
    labels: dict[str, str] = {}
    for agent, of_agent in by_agent.items():
        names = sorted({name for run in of_agent for name in run.settings if name not in _UNCOMPARED})
        different = [name for name in names if len({json.dumps(run.settings.get(name)) for run in of_agent}) > 1]
        for run in of_agent:
            given = (name for name in different if name in run.settings)
            own = (f"{name.removeprefix('agent.')}={run.settings[name]}" for name in given)
            labels[key(run)] = " ".join((agent, *own))
    return _grouped(runs, lambda run: labels[key(run)])


def _grouped(runs: Iterable[EvaluatedRun], label: Callable[[EvaluatedRun], str]) -> list[Group]:
    found: dict[str, list[EvaluatedRun]] = defaultdict(list)
    for run in runs:
        found[label(run)].append(run)
    return [Group(name, found[name]) for name in sorted(found)]


def _one_per_seed(groups: Sequence[Group]) -> tuple[list[Group], list[str]]:
    """Groups in which each seed counts once, the last path of several; and notes that say so."""
    single, notes = [], []
    for group in groups:
        by_seed = {run.seed: run for run in group.runs}
        if len(by_seed) < len(group.runs):
            notes.append(f"{group.label} has a seed more than once; the run of the last name counts")
        single.append(Group(group.label, list(by_seed.values())))
    return single, notes


def _missing(group: Group, seeds: Iterable[int]) -> list[int]:
    return sorted(set(seeds) - {run.seed for run in group.runs})


def _reason(error: Exception) -> str:
    return f"it lacks {error}" if isinstance(error, KeyError) else reason(error)
