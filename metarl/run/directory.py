"""The run directory: a run's settings, logs, checkpoints and evaluations.

runs/<family>/<agent>/<time>_s<seed>/
  config.json  meta.json                    settings; the command, package versions, git commits
  code/                                     the user's code and robots, as they were; see metarl/run/kept_files.py
  progress.csv  progress.json  events.*     the logs, through stable-baselines3's logger
  checkpoints/{latest,best}.pt              tensors and plain Python only, written atomically
  evaluation_test.json                      the adaptation curve at the training's end
  evaluation_<split>_<tasks>x<episodes>_i<iteration>_s<seed>.json   later evaluations
  evaluation_....csv                        scores and parameters of each task
  baselines.json                            what other methods reach on the run's family
  traceback.txt                             traceback of an error that ended the training, e.g. in a user's function
  videos/                                   videos, and their animated images for TensorBoard
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from metarl.errors import RunError, shell_command
from metarl.run.files import is_scratch, open_lock, read_file, reason, write_whole
from metarl.run.log_writers import DEFAULT_LOG, STEP_TAG, WRITERS, check_log, csv_of, open_logger, rows_of
from metarl.run.provenance import provenance

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

if TYPE_CHECKING:
    from stable_baselines3.common.logger import Logger

    from metarl.evaluation import Evaluation


_BEFORE_CONFIG = {"meta.json", "checkpoints", "code"}  # what is made before config.json, which makes a directory a run


class Run:
    """One run's directory. Make a new one with `create`, find an old one with `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.results = path  # where evaluations, pictures and videos are saved
        self._logger: Logger | None = None
        self._log_to: tuple[str, ...] | None = None  # other writers of the progress than meta.json names
        self._forget_after: int | None = None  # environment steps; set by `rewind` until the next `log`

    @classmethod
    def create(
        cls,
        root: Path | str,
        family_name: str,
        agent_name: str,
        seed: int,
        config: Mapping[str, Any],
        command: list[str],
        log: Sequence[str] = DEFAULT_LOG,
        **kept: Any,
    ) -> Run:
        """A new run below `root`, in a directory of its own even when two runs start in the same second.

        log: the writers of its progress; see metarl/run/log_writers.py. kept: what else `create_at` takes.

        Raises:
            RunError: when the directory cannot be written.
            UserError: when a writer is unknown, or its package is not installed.
        """
        check_log(log)
        return cls.create_at(cls.new_path(root, family_name, agent_name, seed), config, command, log, **kept)

    @staticmethod
    def new_path(root: Path | str, family_name: str, agent_name: str, seed: int) -> Path:
        """A fresh, empty directory below `root` for a run.

        Raises:
            RunError: when it cannot be made.
        """
        parent = Path(root) / family_name / agent_name
        stem = f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_s{seed}"
        try:
            parent.mkdir(parents=True, exist_ok=True)
            attempt = 1
            while True:
                path = parent / (stem if attempt == 1 else f"{stem}_{attempt}")
                try:
                    path.mkdir()
                    return path
                except FileExistsError:
                    attempt += 1
        except OSError as error:
            raise RunError(f"cannot create a run below {parent}: {reason(error)}") from error

    @classmethod
    def create_at(
        cls,
        path: Path | str,
        config: Mapping[str, Any],
        command: list[str],
        log: Sequence[str] = DEFAULT_LOG,
        *,
        project: Path | None = None,
        code: Mapping[str, bytes] | None = None,
        start: Mapping[str, Any] | None = None,
        family_versions: Mapping[str, str] | None = None,
    ) -> Run:
        """A new run in exactly this directory, which must be empty or absent, or have been left before it was a run.

        project: a folder of the user's project, whose commit is noted next to our own. code: what the run keeps of its
        code, by file name; see metarl/run/kept_files.py. start: the run whose weights the training starts from.
        family_versions: those of the interpreter in which the environments run, where it is not ours.

        Raises:
            RunError: when it holds something already or cannot be written.
            UserError: when a writer in `log` is unknown, or its package is not installed.
        """
        check_log(log)
        path = Path(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            if (path / "config.json").exists():
                raise RunError(
                    f"{path} holds a run already; continue it with: {shell_command('metarl', 'resume', path)}"
                )
            if not _is_blank(path):
                raise RunError(f"{path} is not empty; a new run needs an empty directory or one that does not exist")
            (path / "checkpoints").mkdir(exist_ok=True)
            more = {"from": start, "family_versions": family_versions}
            given = {name: value for name, value in more.items() if value}
            meta = {**provenance(command, project), "log": list(log), **given}
            write_whole(path / "meta.json", _json_bytes(meta))
            cls(path).keep_code(code or {})
            write_whole(path / "config.json", _json_bytes(config))  # last: what makes a directory a run
        except OSError as error:
            raise RunError(f"cannot create a run in {path}: {reason(error)}") from error
        return cls(path)

    @classmethod
    def open(cls, path: Path | str) -> Run:
        """The run in a directory, or in the archive of a trained agent.

        Raises:
            RunError: when there is no run, or an archive is not one of ours.
        """
        path = Path(path)
        if path.is_file():
            from metarl.run.archive import PackedRun  # here, as that is a Run

            return PackedRun(path)
        if (path / "config.json").is_file():
            return cls(path)
        if not path.exists():
            raise RunError(f"there is no run at {path}: no such directory")
        inside = sorted(found.parent for found in path.glob("**/config.json")) if path.is_dir() else []
        hint = f"; the newest run below it is {max(inside, key=lambda run: run.stat().st_mtime)}" if inside else ""
        raise RunError(f"{path} is not a run: it has no config.json{hint}")

    @property
    def is_packed(self) -> bool:
        """Whether it is the archive of a trained agent, which has one checkpoint and cannot be trained."""
        return False

    @property
    def videos(self) -> Path:
        """The folder of this run's videos.

        Raises:
            RunError: when it is a symbolic link, which may lead out of the run.
        """
        return self._own_folder("videos")

    def _results_folder(self) -> Path:
        """Where results are saved; it exists."""
        return self.results

    def _own_folder(self, name: str) -> Path:
        path = self.path / name
        if path.is_symlink():
            raise RunError(f"{path} is a symbolic link; must be a folder of the run's own")
        return path

    def config(self) -> dict[str, Any]:
        """The run's settings.

        Raises:
            RunError: when config.json cannot be read.
        """
        try:
            config = json.loads(read_file(self.path / "config.json"))
        except (OSError, ValueError, RecursionError) as error:
            raise RunError(f"cannot read {self.path / 'config.json'}: {reason(error)}") from error
        if not isinstance(config, dict):
            raise RunError(f"{self.path / 'config.json'} holds a {type(config).__name__}; must hold one object")
        return config

    def meta(self) -> dict[str, Any]:
        """Where the run came from: its command, commit and machine; empty where that cannot be read."""
        try:
            meta = json.loads(read_file(self.path / "meta.json"))
        except (OSError, ValueError, RecursionError):
            return {}
        return meta if isinstance(meta, dict) else {}

    def rewrite_config(self, config: Mapping[str, Any]) -> None:
        """Change the run's settings, e.g. to train for longer.

        Raises:
            RunError: when the disk refuses it.
        """
        try:
            write_whole(self.path / "config.json", _json_bytes(config))
        except OSError as error:
            raise RunError(f"cannot write {self.path / 'config.json'}: {reason(error)}") from error

    def keep_code(self, code: Mapping[str, bytes]) -> None:
        """Write what the run keeps of its code, by file name, in this order.

        Raises:
            RunError: when the disk refuses it.
        """
        for name, content in code.items():
            file = self.path / name
            try:
                if not file.parent.resolve().is_relative_to(self.path.resolve()):
                    raise RunError(f"{file.parent} is a link out of the run's directory; remove it")
                file.parent.mkdir(parents=True, exist_ok=True)
                write_whole(file, content)
            except OSError as error:
                raise RunError(f"cannot write {file}: {reason(error)}") from error

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Prevent other processes from training in this run; any kind of kill releases the lock.

        On entry, partial checkpoints of a killed training are removed.

        Raises:
            RunError: when another process is training in it, or the lock file cannot be written.
        """
        if fcntl is None:
            yield
            return
        path = self.path / ".lock"
        try:
            file = open_lock(path)
        except OSError as error:
            raise RunError(f"cannot lock {path}: {reason(error)}; must be a file that can be written") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunError(f"another process is training in {self.path}; stop it first") from error
            except OSError as error:  # of a network's file system without locks
                raise RunError(f"cannot lock {path}: {reason(error)}") from error
            for scratch in filter(is_scratch, self._own_folder("checkpoints").glob(".*")):
                with contextlib.suppress(OSError):
                    scratch.unlink()
            yield

    # Metrics

    @property
    def log_names(self) -> tuple[str, ...]:
        """What the progress is written to, as was asked for when the run was made; earlier runs have the default."""
        if self._log_to is not None:
            return self._log_to
        try:
            log = self.meta()["log"]
            return tuple(log) if isinstance(log, list) and set(log) <= set(WRITERS) else DEFAULT_LOG
        except (KeyError, TypeError):
            return DEFAULT_LOG

    def log_to(self, names: Sequence[str]) -> None:
        """Write the progress to these from now on, whatever meta.json names."""
        self._log_to = tuple(names)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Append one row of metrics at this many environment steps.

        Raises:
            RunError: when the disk refuses it.
        """
        try:
            logger = self._logger = self._logger or open_logger(self.path, self._forget_after, self.log_names)
            self._forget_after = None
            for tag, value in {**metrics, STEP_TAG: step}.items():
                logger.record(tag, value)
            logger.dump(step)
        except OSError as error:
            raise RunError(f"cannot log into {self.path}: {reason(error)}") from error

    def log_anew(self, metrics: Mapping[str, float], step: int) -> None:
        """Log a row unless the last one is of this many environment steps and has all its tags.

        A last row of this step with fewer tags, as a kill before the evaluation leaves it, is written anew with them.

        Raises:
            RunError: when the disk refuses it.
        """
        rows = self.progress()
        last = rows[-1] if rows and rows[-1][STEP_TAG] == step else {}
        if last.keys() >= {*metrics, STEP_TAG}:
            return
        self.rewind(step - 1)
        self.log({**last, **metrics}, step)

    def log_animation(self, tag: str, gif: bytes, size: tuple[int, int], step: int) -> None:
        """Show an animated image (an encoded GIF of this width and height) under `tag` in TensorBoard.

        It is written to the directory `videos`: TensorBoard follows only one growing file per directory, which is the
        training's own in the run directory.

        Raises:
            RunError: when the disk refuses it.
        """
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        width, height = size
        protos: Any = summary_pb2  # made at run time, so that nothing of them is typed
        image = protos.Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=gif)
        summary = protos.Summary(value=[protos.Summary.Value(tag=tag, image=image)])
        event = vars(event_pb2)["Event"](wall_time=time.time(), step=step, summary=summary)
        try:
            writer = EventFileWriter(str(self.videos))
            writer.add_event(event)
            writer.close()
        except OSError as error:
            raise RunError(f"cannot log into {self.path}: {reason(error)}") from error

    def rewind(self, step: int) -> None:
        """Forget the rows after this many environment steps, before a resumed run appends its own.

        Raises:
            RunError: when the disk refuses it.
        """
        self.close()
        rows = [row for row in self.progress() if row[STEP_TAG] <= step]
        try:
            write_whole(self.path / "progress.json", "".join(f"{json.dumps(row)}\n" for row in rows).encode())
            write_whole(self.path / "progress.csv", csv_of(rows).encode())
        except OSError as error:
            raise RunError(f"cannot rewrite the progress of {self.path}: {reason(error)}") from error
        self._forget_after = step

    def progress(self) -> list[dict[str, float]]:
        """The rows logged so far, by tag, in the order of environment steps; lines that are no rows are left out.

        Raises:
            RunError: when they cannot be read.
        """
        path = self.path / "progress.json"
        try:
            content = read_file(path)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RunError(f"cannot read {path}: {reason(error)}") from error
        return rows_of(content)

    def close(self) -> None:
        """Close the log files; a later `log` appends to them."""
        if self._logger is None:
            return
        logger, self._logger = self._logger, None
        for output in logger.output_formats:
            try:
                output.close()
            except OSError as error:
                raise RunError(f"cannot log into {self.path}: {reason(error)}") from error

    # Checkpoints

    def save(self, name: str, state: Mapping[str, Any]) -> None:
        """Write checkpoints/<name>.pt, whole or not at all.

        Raises:
            RunError: when the disk refuses it; the earlier checkpoint of this name is left as it was.
            TypeError: when the state holds anything but tensors and plain Python.
        """
        check_plain(state, name)
        path = self.checkpoint_path(name)
        try:
            write_whole(path, lambda file: torch.save(state, file))
        except (OSError, RuntimeError) as error:
            cause = error if isinstance(error, OSError) else error.__context__  # of torch, which closes in vain
            if not isinstance(cause, OSError):
                raise
            kept = "the checkpoint before it is kept" if path.exists() else "there is no earlier one"
            raise RunError(f"cannot write checkpoint {path}: {reason(cause)}; {kept}") from error

    def has(self, name: str) -> bool:
        """Whether there is a checkpoint of this name."""
        return self.checkpoint_path(name).is_file()

    def checkpoints(self) -> list[str]:
        """The names of all checkpoints, e.g. best, iteration_50, iteration_100, latest."""
        files = [file for file in self._own_folder("checkpoints").glob("*.pt") if file.is_file()]  # no pipe, no folder
        names = [file.stem for file in files if not is_scratch(file)]
        return sorted(names, key=lambda name: (name.rstrip("0123456789"), len(name), name))

    def checkpoint(self, asked: str) -> str:
        """The name of the checkpoint that is read where this one is asked for."""
        return asked

    def load(self, name: str) -> dict[str, Any]:
        """The state in checkpoints/<name>.pt, all tensors on the CPU.

        Raises:
            RunError: when there is none or it cannot be read.
        """
        path = self.checkpoint_path(name)
        if not self.has(name):
            there = ", ".join(self.checkpoints()) or "none"
            raise RunError(f"{self.path} has no checkpoint named {name!r}; it has {there}")
        try:
            file = path.open("rb")
        except OSError as error:
            raise RunError(f"cannot read checkpoint {path}: {reason(error)}") from error
        try:
            with file:
                state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged archive raises whatever its first bad byte leads to
            kind = type(error).__name__
            what = f"it is corrupt or not a checkpoint ({kind} from torch.load)"
            raise RunError(f"cannot read checkpoint {path}: {what}") from error
        if not isinstance(state, dict):
            raise RunError(f"{path} is not a checkpoint: it holds a {type(state).__name__}; must hold a dict")
        return state

    def checkpoint_path(self, name: str) -> Path:
        """The file of a checkpoint.

        Raises:
            RunError: when its folder is a symbolic link.
        """
        return self._own_folder("checkpoints") / f"{name}.pt"

    # Evaluations

    def save_evaluation(
        self, evaluation: Evaluation, subject: Mapping[str, Any] | None = None, name: str | None = None
    ) -> Path:
        """Write an evaluation, with what else identifies its subject, as <name>.json; returns its path.

        name: evaluation_<split> where it is left out, the name of the training's own.

        Raises:
            RunError: when the disk refuses it.
        """
        path = self._results_folder() / f"{name or f'evaluation_{evaluation.split}'}.json"
        try:
            write_whole(path, _json_bytes({**evaluation.as_json(), **(subject or {})}, compact="per_task"))
        except OSError as error:
            raise RunError(f"cannot write {path}: {reason(error)}") from error
        return path

    def save_grid(self, name: str, evaluations: Sequence[Mapping[str, Any]]) -> Path:
        """Write the evaluations of a sensitivity grid as <name>.json; returns its path.

        Raises:
            RunError: when the disk refuses it.
        """
        path = self._results_folder() / f"{name}.json"
        try:
            write_whole(path, _json_bytes({"cells": list(evaluations)}))
        except OSError as error:
            raise RunError(f"cannot write {path}: {reason(error)}") from error
        return path

    def save_baselines(self, baselines: Mapping[str, Any]) -> Path:
        """Write what other methods reach on the run's family as baselines.json; returns its path.

        Raises:
            RunError: when the disk refuses it.
        """
        path = self.path / "baselines.json"
        try:
            write_whole(path, _json_bytes(baselines))
        except OSError as error:
            raise RunError(f"cannot write {path}: {reason(error)}") from error
        return path

    def baselines(self) -> dict[str, list[float]]:
        """The mean return of each episode under other methods, by name; empty where none are saved or readable."""
        try:
            results = json.loads(read_file(self.path / "baselines.json"))["baselines"]
            return {str(result["name"]): [float(value) for value in result["episodes"]] for result in results}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return {}

    def save_per_task(self, evaluation: Evaluation, name: str) -> Path:
        """Write what was measured in each task as <name>.csv, a row for each task and point; returns its path.

        Raises:
            RunError: when the disk refuses it.
        """
        rows = [] if evaluation.per_task is None else evaluation.per_task.rows(evaluation.measure)
        path, text = self._results_folder() / f"{name}.csv", io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        try:
            write_whole(path, text.getvalue().encode())
        except OSError as error:
            raise RunError(f"cannot write {path}: {reason(error)}") from error
        return path

    def evaluated_iteration(self) -> int | None:
        """The iteration at which the training's own evaluation was made; None where there is none to be read."""
        try:
            evaluation = json.loads(read_file(self.path / "evaluation_test.json"))
        except (OSError, ValueError, RecursionError):
            return None
        return evaluation.get("iteration") if isinstance(evaluation, dict) else None

    def save_traceback(self, error: BaseException) -> Path:
        """Write where an error of a user's function or of ours came from, as traceback.txt; returns its path.

        Raises:
            RunError: when the disk refuses it.
        """
        path = self.path / "traceback.txt"
        try:
            write_whole(path, "".join(traceback.format_exception(error)).encode(errors="replace"))
        except OSError as failure:
            raise RunError(f"cannot write {path}: {reason(failure)}") from failure
        return path

    def save_json(self, name: str, content: Mapping[str, Any]) -> Path:
        """Write results as <name>.json; returns its path.

        Raises:
            RunError: when the disk refuses it.
        """
        path = self._results_folder() / f"{name}.json"
        try:
            write_whole(path, _json_bytes(content))
        except OSError as error:
            raise RunError(f"cannot write {path}: {reason(error)}") from error
        return path

    def save_picture(self, name: str, png: bytes) -> Path:
        """Write an encoded image as <name>.png; returns its path.

        Raises:
            RunError: when the disk refuses it.
        """
        path = self._results_folder() / f"{name}.png"
        try:
            write_whole(path, png)
        except OSError as error:
            raise RunError(f"cannot write {path}: {reason(error)}") from error
        return path


def _is_blank(path: Path) -> bool:
    """Whether a directory contains only the leftovers of a training that was killed at its start."""
    made = [found for found in path.iterdir() if not is_scratch(found)]
    checkpoints = path / "checkpoints"
    is_empty = not checkpoints.exists() or (checkpoints.is_dir() and not any(checkpoints.iterdir()))
    return {found.name for found in made} <= _BEFORE_CONFIG and is_empty and not checkpoints.is_symlink()


def check_plain(state: Any, where: str = "state") -> None:
    """Check that torch.load(weights_only=True) can load a state; the error names the position of anything else.

    Raises:
        TypeError: when something is neither a tensor nor plain Python.
    """
    if isinstance(state, Mapping):
        for key, value in state.items():
            check_plain(key, f"a key of {where}")
            check_plain(value, f"{where}[{key!r}]")
    elif type(state) in (list, tuple):
        for index, value in enumerate(state):
            check_plain(value, f"{where}[{index}]")
    elif not (isinstance(state, Tensor) or state is None or type(state) in (bool, int, float, str)):
        raise TypeError(f"{where} is a {type(state).__name__}; a checkpoint holds tensors and plain Python only")


def _json_bytes(value: Mapping[str, Any], compact: str | None = None) -> bytes:
    """An object with a line for each number; compact: a key whose value is on one line, as it has thousands."""
    text = json.dumps({key: inner for key, inner in value.items() if key != compact}, indent=2)
    if compact is not None and compact in value:
        text = f"{text.removesuffix(chr(10) + '}')},\n  {json.dumps(compact)}: {json.dumps(value[compact])}\n}}"
    return (text + "\n").encode()
