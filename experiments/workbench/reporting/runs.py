"""A run as a report reads it: from its files only, each of which may be missing, damaged or somebody else's.

Nothing that a run names or keeps is run. What goes into the page unread, such as videos, must be a file of the run's
own: a symbolic link could lead to any file of the reader's, who then sends the page.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import TypeAdapter, ValidationError

from experiments.cli.tables import verdict
from experiments.experiment.definition import Expected, path_now
from experiments.experiment.names import AGENTS, FAMILIES, FUNCTION_FAMILIES, LEARNERS
from experiments.workbench.comparing.runs import PLAIN_NAME
from experiments.workbench.insight.findings import Finding
from experiments.workbench.insight.probing import Probing
from experiments.workbench.launching.standing import OUTPUT
from metarl.errors import RunError, shell_command
from metarl.evaluation import Evaluation
from metarl.run.directory import STEP_TAG, Run
from metarl.run.files import read_file, reason

T = TypeVar("T")
SPLITS = ("train", "val", "test", "ood")
MOST_MEDIA = 5_000_000  # bytes of videos and images in a page, before their encoding
_MOST = 1e300  # limit on numbers in the log; one that is not finite is not below it
_MOST_VIDEOS = 4  # of a run
_MOST_TEXT = 6_000  # characters of a traceback
_MOST_WARNINGS = 20
_KINDS = {".mp4": ("video/mp4", 4, b"ftyp"), ".png": ("image/png", 0, b"\x89PNG\r\n\x1a\n")}  # how such files begin
_PROBE_IMAGES = {  # what `metarl probe` saves next to its numbers, and what it shows
    "states": "States of tasks in the plane of their first two principal components, coloured by parameter",
    "distances": "Distances between the states of tasks, and the tree of tasks",
    "attention": "Mean attention to each step of the trial",
}
_DIAGNOSIS_IMAGES = {"transfer": "Score in each task after adapting to each other task"}
_OF_NUMBERS = ({"mean", "iqm"}, {"cvar20", "cvar5"})  # what parts of an evaluation have that hold nothing but numbers
_WARNING = re.compile(r"warning|^metarl: ", re.IGNORECASE)
_READER: TypeAdapter[Evaluation] = TypeAdapter(Evaluation)
_PROBING: TypeAdapter[Probing] = TypeAdapter(Probing)
_FINDINGS: TypeAdapter[list[Finding]] = TypeAdapter(list[Finding])
_EXPECTED: TypeAdapter[Expected | None] = TypeAdapter(Expected | None)


@dataclass(frozen=True)
class SavedEvaluation:
    """An evaluation of a run, and what identifies it."""

    file: str  # its name in the run
    evaluation: Evaluation
    iteration: int | None  # how far the training was
    checkpoint: str
    seed: int | None  # of the evaluation
    code: str  # whether the code was the training's

    @property
    def is_plain(self) -> bool:
        """Whether it was made under the settings of the training and of its latest checkpoint."""
        name = f"evaluation_{self.evaluation.split}{PLAIN_NAME}"
        return self.checkpoint == "latest" and re.fullmatch(name, self.file) is not None


@dataclass(frozen=True)
class Media:
    """A video or an image of a run; without its content where that is too large for the page or cannot be read."""

    path: Path
    what: str  # what is to be seen, for who cannot see it
    url: str  # a data: URL; empty without content
    problem: str  # why there is no content


@dataclass(frozen=True)
class SavedProbe:
    """What the newest `metarl probe` of a run found."""

    file: str  # its name in the run
    probing: Probing
    split: str
    iteration: int | None  # how far the training was
    images: list[Media]


@dataclass(frozen=True)
class SavedDiagnosis:
    """What the newest `metarl diagnose` of a run found."""

    findings: list[Finding]
    images: list[Media]


@dataclass(frozen=True)
class Problem:
    """Something that a reader must know to judge a run."""

    text: str
    command: str = ""  # a command that makes it good
    details: str = ""  # such as a traceback


@dataclass(frozen=True)
class ReportedRun:
    """All that a report shows of a run."""

    path: Path
    config: dict[str, Any]
    meta: dict[str, Any]
    rows: list[dict[str, float]]  # the log of its training
    evaluations: dict[str, SavedEvaluation]  # by split, in the order of SPLITS
    others: list[SavedEvaluation]  # under other settings, of other checkpoints, or smaller
    baselines: dict[str, list[float]]
    videos: list[Media]
    exploration: Media | None
    probe: SavedProbe | None  # the newest
    diagnosis: SavedDiagnosis | None  # the newest
    problems: list[Problem]

    @property
    def main(self) -> SavedEvaluation | None:
        """The evaluation on test tasks; where there is none, that on validation, training or ood tasks."""
        found = (self.evaluations.get(split) for split in ("test", "val", "train", "ood"))
        return next((saved for saved in found if saved is not None), None)

    @property
    def expected(self) -> Expected | None:
        """What the recipe expects; None where it expects nothing, or the settings do not say it as it must be."""
        try:
            return _EXPECTED.validate_python(self.config.get("expected"))
        except ValidationError:
            return None

    @property
    def iteration(self) -> int:
        """How many iterations are logged."""
        return int(self.rows[-1].get("time/iterations", 0)) if self.rows else 0

    @property
    def num_iterations(self) -> int | None:
        """How many the training has, by its settings."""
        train = self.config.get("train")
        number = train.get("num_iterations") if isinstance(train, dict) else None
        return number if isinstance(number, int) else None


def read_run(path: Path, most_media: int = MOST_MEDIA) -> ReportedRun:
    """Read a run; what cannot be read of it, its config.json aside, is a problem in the report.

    most_media: bytes of its videos and images that may be taken into the page.

    Raises:
        RunError: when there is no run, or its config.json or its log cannot be read.
    """
    run = Run.open(path)
    config = run.config()
    rows = [row for row in map(_finite, run.progress()) if STEP_TAG in row]
    problems: list[Problem] = []
    saved = _evaluations(run, problems)
    chosen: dict[str, SavedEvaluation] = {}
    for split in SPLITS:
        plain = [one for one in saved if one.evaluation.split == split and one.is_plain]
        if plain:
            chosen[split] = max(plain, key=lambda one: (one.iteration or 0, one.evaluation.num_tasks, one.file))
    budget = _Budget(most_media)
    exploration = path / "exploration.png"
    reported = ReportedRun(
        path=path,
        config=config,
        meta=run.meta(),
        rows=rows,
        evaluations=chosen,
        others=[one for one in saved if one not in chosen.values()],
        baselines=run.baselines(),
        exploration=budget.take(exploration, "Trajectories of each episode on a few test tasks")
        if exploration.exists() or exploration.is_symlink()
        else None,
        videos=[budget.take(video, "Video of adaptation") for video in _videos(run, problems)],
        probe=_newest(run, "probe", partial(_probe, budget=budget), problems),
        diagnosis=_newest(run, "diagnosis", partial(_diagnosis, budget=budget), problems),
        problems=problems,
    )
    problems[:0] = _state(reported)
    problems += _failures(reported)
    return reported


def _finite(row: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a row of the log."""
    numbers = {tag: value for tag, value in row.items() if type(value) in (int, float) and abs(value) < _MOST}
    return {tag: float(value) for tag, value in numbers.items()}


def _evaluations(run: Run, problems: list[Problem]) -> list[SavedEvaluation]:
    """All evaluations of a run that can be read; the others become problems."""
    found = []
    for file in sorted(run.path.glob("evaluation_*.json")):
        try:
            found.append(_saved(file.name, json.loads(read_file(file))))
        except (OSError, ValueError, TypeError, OverflowError, RecursionError) as error:
            problems.append(Problem(f"cannot read {file.name}: {_reason(error)}"))
    return found


def _newest(run: Run, kind: str, read: Callable[[Path, Any], T], problems: list[Problem]) -> T | None:
    """What the newest file of a kind holds; None without one, or where it cannot be read, which is a problem."""
    files = sorted(run.path.glob(f"{kind}_*.json"), key=lambda file: file.lstat().st_mtime)
    for file in files[-1:]:
        try:
            return read(file, json.loads(read_file(file)))
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            problems.append(Problem(f"cannot read {file.name}: {_reason(error)}"))
    return None


def _probe(file: Path, content: Any, budget: _Budget) -> SavedProbe:
    """A probe and its images.

    Raises:
        ValueError: when the file does not hold a probe.
    """
    probing = _PROBING.validate_python(content)
    images = [budget.take(path, what) for path, what in _images(file, _PROBE_IMAGES)]
    iteration = content.get("iteration")
    return SavedProbe(
        file.name, probing, str(content.get("split")), iteration if isinstance(iteration, int) else None, images
    )


def _diagnosis(file: Path, content: Any, budget: _Budget) -> SavedDiagnosis:
    """A diagnosis and its image.

    Raises:
        ValueError: when the file does not hold one.
    """
    findings = _FINDINGS.validate_python(content["findings"])
    return SavedDiagnosis(findings, [budget.take(path, what) for path, what in _images(file, _DIAGNOSIS_IMAGES)])


def _images(file: Path, names: Mapping[str, str]) -> list[tuple[Path, str]]:
    """The images that were saved next to a file of results, with what each shows."""
    found = [(file.with_name(f"{file.stem}_{name}.png"), what) for name, what in names.items()]
    return [(path, what) for path, what in found if path.exists() or path.is_symlink()]


def _saved(name: str, content: Any) -> SavedEvaluation:
    """An evaluation file's content.

    Raises:
        ValueError: when it is not an evaluation.
    """
    evaluation = _READER.validate_python(_with_nan(content))
    per_task, num_points = evaluation.per_task, len(evaluation.points)
    if num_points == 0:
        raise ValueError("it has no points")
    if per_task is not None:
        shape = (num_points, len(per_task.scores[0]) if per_task.scores else 0)
        for values in (per_task.scores, *per_task.bounds.values()):
            if np.array(values, dtype=float).shape != shape:
                raise ValueError("the scores by task do not fit the points")
        if any(len(values) != shape[1] for values in per_task.parameters.values()):
            raise ValueError("the parameters of the tasks do not fit the scores")
        if per_task.groups and len(per_task.groups) != shape[1]:
            raise ValueError("the kinds of the tasks do not fit the scores")
    if any(len(values) != num_points for values in (*evaluation.bounds.values(), *evaluation.metrics.values())):
        raise ValueError("the bounds or metrics do not fit the points")
    if evaluation.measure.first not in (0, 1):
        raise ValueError(f"measure.first is {evaluation.measure.first}; must be 0 or 1")
    iteration, seed = content.get("iteration"), content.get("evaluation_seed")
    return SavedEvaluation(
        file=name,
        evaluation=evaluation,
        iteration=iteration if isinstance(iteration, int) else None,
        checkpoint=str(content.get("checkpoint", "latest")),
        seed=seed if isinstance(seed, int) else None,
        code=str(content.get("code", "unknown")),
    )


def _with_nan(value: Any) -> Any:
    """Numbers that were not finite, and are None in JSON, as NaN."""
    if isinstance(value, dict):
        numbers = any(value.keys() >= names for names in _OF_NUMBERS)
        return {key: math.nan if numbers and inner is None else _with_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [math.nan if inner is None else _with_nan(inner) for inner in value]
    return value


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
    return reason(error)


def _videos(run: Run, problems: list[Problem]) -> list[Path]:
    """The videos to show: those of `metarl play` first, then the last and the first one of the training."""
    try:
        files = sorted(run.videos.glob("*.mp4"))
    except RunError as error:
        problems.append(Problem(str(error)))
        return []
    of_training = [file for file in files if file.name.startswith("iteration_")]
    played = [file for file in files if file not in of_training]
    return list(dict.fromkeys((*played, *of_training[-1:], *of_training[:1])))[:_MOST_VIDEOS]


class _Budget:
    """Files as data: URLs, as long as they fit into so many bytes."""

    def __init__(self, most: int) -> None:
        self._left = most

    def take(self, path: Path, what: str) -> Media:
        kind, start, signature = _KINDS[path.suffix]
        try:
            size = path.lstat().st_size
            if size > self._left:
                return Media(path, what, "", f"left out, as it has {size / 1e6:.1f} MB")
            content = _own_content(path)
        except OSError as error:
            return Media(path, what, "", f"cannot be read: {reason(error)}")
        if content[start : start + len(signature)] != signature:
            return Media(path, what, "", f"left out, as it is not a file of the type {kind}")
        self._left -= len(content)
        return Media(path, what, f"data:{kind};base64,{base64.b64encode(content).decode()}", "")


def _own_content(path: Path) -> bytes:
    """The content of a file that is in the run itself.

    Raises:
        OSError: when it cannot be read, or is a symbolic link.
    """
    if path.is_symlink():
        raise OSError("it is a symbolic link; must be a file of the run's own")
    return read_file(path)


def _state(run: ReportedRun) -> list[Problem]:
    """How far the run is, and which evaluations are not of its end or of an earlier version."""
    found = []
    if run.num_iterations is not None and run.iteration < run.num_iterations:
        what = f"the training is not finished: {run.iteration} of {run.num_iterations} iterations"
        found.append(Problem(what, shell_command("metarl", "resume", run.path)))
    for split in SPLITS:
        saved = run.evaluations.get(split)
        command = shell_command("metarl", "evaluate", run.path, "--split", split)
        if saved is None:
            continue  # the section on splits says so
        if saved.iteration is not None and saved.iteration < run.iteration:
            what = f"the evaluation on {split} tasks is of iteration {saved.iteration}, before the last one"
            found.append(Problem(what, command))
        elif saved.evaluation.per_task is None:
            what = f"the evaluation on {split} tasks lacks the scores by task, as it is of an earlier version"
            found.append(Problem(what, command))
    return found


def _failures(run: ReportedRun) -> list[Problem]:
    """What went wrong in the training and its evaluations."""
    found = []
    diverged = sum(row.get("rollout/num_diverged", 0) for row in run.rows)
    if diverged:
        what = "environments diverged or crashed in training; their episodes were truncated and the rows reset"
        found.append(Problem(f"{diverged:,.0f} {what}"))
    for saved in run.evaluations.values():
        scores = () if saved.evaluation.per_task is None else saved.evaluation.per_task.scores[-1]
        broken = sum(not math.isfinite(score) for score in scores)
        if broken:
            what = (
                f"scores are not finite on {broken} of {len(scores)} {saved.evaluation.split} tasks: it diverged there"
            )
            found.append(Problem(what))
        if saved.code not in ("as trained", "unknown"):
            found.append(Problem(f"{saved.file} was made with other code than the training's: {saved.code}"))
    missed = _missed(run)
    if missed is not None:
        found.append(missed)
    for name in ("traceback.txt", OUTPUT):
        file = run.path / name
        try:
            lines = _own_content(file).decode(errors="replace").splitlines()
        except FileNotFoundError:
            continue
        except OSError as error:
            found.append(Problem(f"cannot read {name}: {reason(error)}"))
            continue
        found += _of_traceback(lines) if name != OUTPUT else _of_output(lines)
    return found


def _missed(run: ReportedRun) -> Problem | None:
    """The expectation of the recipe, where the run has not reached it."""
    saved, expected = run.evaluations.get("test"), run.expected
    text = "" if saved is None or expected is None else verdict(saved.evaluation, expected)
    return Problem(text) if "NOT reached" in text else None


def _of_traceback(lines: Sequence[str]) -> list[Problem]:
    if not lines:
        return []
    return [Problem(f"the training ended with an error: {lines[-1]}", details="\n".join(lines)[-_MOST_TEXT:])]


def _of_output(lines: Sequence[str]) -> list[Problem]:
    """The distinct warnings in what a launched run printed."""
    warnings = list(dict.fromkeys(line.strip() for line in lines if _WARNING.search(line)))
    shown = [Problem(f"{OUTPUT}: {line[:300]}") for line in warnings[:_MOST_WARNINGS]]
    more = len(warnings) - len(shown)
    return [*shown, Problem(f"{OUTPUT} has {more} more warnings")] if more > 0 else shown


def state_text(run: ReportedRun) -> str:
    """How far a run is, in a few words."""
    if run.num_iterations is None or run.iteration >= run.num_iterations:
        return "finished"
    return f"{run.iteration} of {run.num_iterations}"


def family_and_agent(run: ReportedRun) -> tuple[str, str]:
    """The names of a run's family and agent, from an evaluation; without one, from its settings."""
    if run.main is not None:
        return run.main.evaluation.family, run.main.evaluation.agent
    return _name_in(FAMILIES | FUNCTION_FAMILIES, run.config.get("family")), _name_in(
        AGENTS | LEARNERS, run.config.get("agent")
    )


def _name_in(catalog: Mapping[str, str], part: Any) -> str:
    """The catalog's name of the class of a part; of another, the class's own."""
    path = str(part.get("class", "unknown")) if isinstance(part, dict) else "unknown"
    return next((name for name, where in catalog.items() if where == path_now(path)), path.rpartition(":")[2])
