"""A run's progress, row by row: writing it, and reading it back from the files.

Each writer has a name in `WRITERS`; those of experiment trackers import their package when they are used.
"""

from __future__ import annotations

import csv
import hashlib
import importlib
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from stable_baselines3.common.logger import JSONOutputFormat, KVWriter, Logger, TensorBoardOutputFormat

from metarl.errors import UserError, shell_command
from metarl.run.files import write_whole

STEP_TAG = "time/total_timesteps"  # the tag that orders all rows: environment steps so far
PROJECT = "metarl"  # the name under which experiment trackers file runs

LogName = Literal["tensorboard", "csv", "json", "wandb", "mlflow", "trackio"]
DEFAULT_LOG: tuple[LogName, ...] = ("tensorboard", "csv", "json")
ALWAYS: tuple[LogName, ...] = ("json", "csv")  # read again when a run is resumed or plotted
_NOT_SHOWN = ("time/iterations", STEP_TAG, "time/collect_fps")  # in TensorBoard: other forms of its own axes
EXTRAS = ("wandb", "mlflow", "trackio")  # packages of the same name, installed as extras


def tensorboard_command(folder: Path) -> str:
    """The command that shows a folder of logs in TensorBoard, where a run has a name only below what is shown.

    That is the folder that it is in, with the runs next to it; in the working directory, it alone is named.
    """
    if folder.parent != Path():
        return shell_command("tensorboard", "--logdir", folder.parent)
    return shell_command("tensorboard", "--logdir_spec", f"{folder.name}:{folder}")


def open_logger(path: Path, forget_after: int | None, log: Sequence[str] = DEFAULT_LOG) -> Logger:
    """Stable-baselines3's logger, appending to what is there; TensorBoard is told to forget later steps.

    Raises:
        UserError: when a tracker's package is not installed; names the extra to install.
    """
    return Logger(str(path), [WRITERS[name](path, forget_after) for name in dict.fromkeys((*ALWAYS, *log))])


def check_log(log: Sequence[str]) -> None:
    """Check the argument --log.

    Raises:
        UserError: for an unknown writer, or one whose package is not installed.
    """
    for name in log:
        if name not in WRITERS:
            raise UserError(f"log is {name!r}; must be one of {', '.join(WRITERS)}")
        if name in EXTRAS:
            _extra(name)


def _json_writer(path: Path, forget_after: int | None) -> KVWriter:
    writer = JSONOutputFormat(os.devnull)  # the format empties the file it opens, so it is given one to append to
    writer.close()
    writer.file = (path / "progress.json").open("a")
    return writer


class _CsvWriter(KVWriter):
    """A table whose columns are the same in every run that logs the same tags: see `csv_of`.

    A tag that comes later, as those of evaluations do, is given its place in the rows before, too.
    """

    def __init__(self, path: Path) -> None:
        path.touch()
        self._file = path.open("r+", newline="")
        self._columns = next(csv.reader(self._file), [])
        self._file.seek(0, os.SEEK_END)

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        row = {tag: value for tag, value in key_values.items() if isinstance(value, (int, float))}
        if not row.keys() <= set(self._columns):
            self._file.seek(0)
            rows = list(csv.DictReader(self._file))
            self._columns = _columns([dict.fromkeys(self._columns), row])
            self._file.seek(0)
            self._file.truncate()
            self._writer().writeheader()
            self._writer().writerows(rows)
        self._writer().writerow(row)
        self._file.flush()

    def _writer(self) -> csv.DictWriter[str]:
        return csv.DictWriter(self._file, self._columns, restval="", lineterminator="\n")

    def close(self) -> None:
        self._file.close()


class _TensorBoardWriter(TensorBoardOutputFormat):
    """Scalars without those that say the same as the horizontal axis, and, at the start, what the run is.

    The tabs: HPARAMS has the settings, TEXT the command and the configuration, CUSTOM SCALARS all points of the
    adaptation curve in one chart.
    """

    def __init__(self, path: Path, forget_after: int | None) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        is_new = not any(path.glob("events.*"))
        super().__init__(str(path))
        if forget_after is not None:
            self.writer.close()
            self.writer = SummaryWriter(str(path), purge_step=forget_after + 1)
        if is_new:
            self._introduce(_config_of(path), _json_of(path / "meta.json"))

    def _introduce(self, config: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard.summary import hparams

        settings = {name: value for name, value in _flat(config).items() if isinstance(value, (bool, int, float, str))}
        for summary in hparams(settings, {"meta_test/iqm": 0.0, "meta_test/gain": 0.0}):
            self.writer._get_file_writer().add_summary(summary)  # pyright: ignore[reportOptionalMemberAccess]
        self.writer.add_text("command", f"    {meta.get('command', 'unknown')}")
        self.writer.add_text("config", _indented(config))
        self.writer.add_text(
            "origin", _indented({key: meta[key] for key in ("git", "versions", "from") if key in meta})
        )
        points = "(ep|step|shot|example)_[0-9]+$"
        charts = {
            title: ["Multiline", [f"{prefix}/[a-z]+/{points}"]]
            for title, prefix in (
                ("test tasks", "meta_test"),
                ("validation tasks", "meta_val"),
                ("training tasks", "meta_train"),
            )
        }
        self.writer.add_custom_scalars({"adaptation, by point of the curve": charts})

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        shown = {tag: value for tag, value in key_values.items() if tag not in _NOT_SHOWN}
        super().write(shown, {tag: key_excluded[tag] for tag in shown}, step)


def _indented(value: Mapping[str, Any]) -> str:
    """JSON as a block of code in Markdown."""
    return "\n".join(f"    {line}" for line in json.dumps(value, indent=2).splitlines())


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names, lists as text."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = str(value) if isinstance(value, list) else value
    return flat


class _WandbWriter(KVWriter):
    """Weights & Biases, or Trackio, which has the same functions. A resumed run continues its tracked run."""

    def __init__(self, module: str, path: Path, **settings: Any) -> None:
        self._module = _extra(module)
        name, config = _name_of(path), _config_of(path)
        self._module.init(project=PROJECT, name=name, config=config, resume="allow", **settings)

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        self._module.log(_numbers(key_values), step=step)

    def close(self) -> None:
        self._module.finish()


class _MlflowWriter(KVWriter):
    """MLflow, at its default address. A resumed run continues its tracked run, whose id is in a file."""

    def __init__(self, path: Path) -> None:
        self._module = _extra("mlflow")
        self._module.set_experiment(PROJECT)
        file = path / "mlflow_run_id"
        if file.exists():
            self._module.start_run(run_id=file.read_text().strip())
            return
        started = self._module.start_run(run_name=_name_of(path))
        write_whole(file, started.info.run_id.encode())
        self._module.log_dict(_config_of(path), "config.json")

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        self._module.log_metrics(_numbers(key_values), step=step)

    def close(self) -> None:
        self._module.end_run()


WRITERS: dict[str, Callable[[Path, int | None], KVWriter]] = {
    "tensorboard": _TensorBoardWriter,
    "csv": lambda path, _: _CsvWriter(path / "progress.csv"),
    "json": _json_writer,
    "wandb": lambda path, _: _WandbWriter("wandb", path, id=_id_of(path), dir=str(path)),
    "mlflow": lambda path, _: _MlflowWriter(path),
    "trackio": lambda path, _: _WandbWriter("trackio", path),
}


def _extra(name: str) -> Any:
    """The package of an experiment tracker.

    Raises:
        UserError: when it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"logging to {name} needs its package: pip install 'metarl[{name}]' ({error})") from error


def _numbers(key_values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in key_values.items() if isinstance(value, (int, float))}


def _name_of(path: Path) -> str:
    """A run's name in trackers: its directory below runs/."""
    return "/".join(path.resolve().parts[-3:])


def _config_of(path: Path) -> dict[str, Any]:
    return _json_of(path / "config.json")


def _json_of(path: Path) -> dict[str, Any]:
    """An object in a file; empty where it cannot be read: a run is trained even where its log lacks its settings."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _id_of(path: Path) -> str:
    """An identifier that stays when a run is resumed: from its name, command and starting time."""
    meta = path / "meta.json"
    content = meta.read_bytes() if meta.is_file() else b""
    return hashlib.sha256(path.resolve().name.encode() + content).hexdigest()[:16]


def rows_of(content: bytes) -> list[dict[str, float]]:
    """The rows in progress.json, without lines that are none."""
    rows = (_row(line) for line in content.splitlines())
    return [row for row in rows if row is not None]


def _row(line: bytes) -> dict[str, float] | None:
    """One line of progress.json; None if it is not a row, e.g. after a kill in the middle of a write."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and type(row.get(STEP_TAG)) in (int, float) else None


def csv_of(rows: list[dict[str, float]]) -> str:
    """The rows as progress.csv: the step, then every tag that one of them has, by name."""
    if not rows:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, _columns(rows), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    tags = {tag for row in rows for tag in row}
    return [STEP_TAG] * (STEP_TAG in tags) + sorted(tags - {STEP_TAG})
