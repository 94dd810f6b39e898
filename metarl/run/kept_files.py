"""The files that a run was made from: their hashes and copies, and how they differ from what is there now.

A run keeps one record for each stretch of its training that had code of its own, in code/0, code/1, ...:

    record.json     the recipe, and the path, hash and module name of each file; digests of data that is not copied
    files/          copies of the files, in the folders that they were in
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath

from pydantic import TypeAdapter, ValidationError

from metarl.errors import RunError

LARGEST_COPY = 20_000_000  # bytes; larger files, such as meshes, are hashed only
LARGEST_HASHED = 10_000_000_000  # bytes of a file that is compared
_FOLDER, _RECORD = "code", "record.json"


@dataclass(frozen=True)
class KeptFile:
    """One file as it was."""

    path: str  # absolute, on the machine of the training
    sha256: str
    copy: str | None  # relative to the folder of the record; None: too large to be kept
    module: str | None = None  # the name under which it was imported


@dataclass(frozen=True)
class CodeRecord:
    """The files behind a stretch of training."""

    recipe: str  # a name, the absolute path of a file, or what stands for an experiment made in Python
    module: str | None  # the module of the recipe; None for an experiment made in Python
    iteration: int  # the first one that had this code, counted from zero
    files: tuple[KeptFile, ...]
    data: dict[str, str] = field(default_factory=dict)  # sha256 by the dotted name of the part that reads the data
    signature: str = ""  # see experiments/experiment/trust.py

    def signed_part(self) -> bytes:
        """Everything but the signature, in one canonical form."""
        return json.dumps({**asdict(self), "signature": ""}, sort_keys=True).encode()

    def file_of(self, module: str | None) -> KeptFile | None:
        """The file that was imported under a name."""
        return next((file for file in self.files if module is not None and file.module == module), None)


@dataclass(frozen=True)
class KeptRecord:
    """A record as it was read from a run, and the folder that has its copies."""

    folder: Path
    record: CodeRecord

    def copy_of(self, file: KeptFile) -> Path:
        """The copy of a file.

        Raises:
            RunError: when none was kept.
        """
        if file.copy is None:
            raise RunError(f"{file.path} was too large for {self.folder} to keep a copy of it")
        return self.folder / file.copy

    def content_of(self, file: KeptFile) -> bytes:
        """The content of a file's copy, checked against its hash.

        Raises:
            RunError: when there is no copy, or it is not what was kept.
        """
        path = self.copy_of(file)
        content = _content(path)
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise RunError(f"{path} has been changed since it was kept: its hash is not the one in {_RECORD}")
        return content


def keep(record_files: Mapping[Path, str | None]) -> tuple[tuple[KeptFile, ...], dict[str, bytes]]:
    """Files as a record names them, and what to write as their copies, by name relative to the record's folder.

    record_files: module names (None for what is not a module) by the files' paths.

    Raises:
        RunError: when one of them cannot be read.
    """
    paths = {_plain(path): module for path, module in record_files.items()}
    root = Path(os.path.commonpath([path.parent for path in paths])) if paths else Path()
    kept: list[KeptFile] = []
    contents: dict[str, bytes] = {}
    for path, module in paths.items():
        try:
            content = path.read_bytes() if path.stat().st_size <= LARGEST_COPY else None
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise RunError(f"cannot read {path}: {error.strerror or error}") from error
        copy = None
        if content is not None:
            copy = str(PurePosixPath("files", *path.relative_to(root).parts))
            contents[copy] = content
        kept.append(KeptFile(str(path), digest, copy, module))
    return tuple(kept), contents


def _plain(path: Path) -> Path:
    """An absolute path without "..", by the links in it where possible: relative paths stay as recipes have them."""
    plain = Path(os.path.normpath(path.absolute()))
    return plain if plain.exists() and plain.samefile(path) else path.resolve()


def hash_of(path: Path) -> str | None:
    """The sha256 of a file's content; None where there is no such file, or it cannot be read."""
    try:
        if not path.is_file() or path.stat().st_size > LARGEST_HASHED:  # a pipe or a device would be waited for
            return None
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def as_files(record: CodeRecord, contents: Mapping[str, bytes], number: int) -> dict[str, bytes]:
    """A record and its copies, by name relative to the run's directory."""
    folder = PurePosixPath(_FOLDER, str(number))
    text = json.dumps(asdict(record), indent=2) + "\n"
    copies = {str(folder / name): content for name, content in contents.items()}
    return {**copies, str(folder / _RECORD): text.encode()}  # the record last: it says that the copies are whole


def number_of_records(run_path: Path) -> int:
    """How many records a run has."""
    names = [path.parent.name for path in run_path.glob(f"{_FOLDER}/*/{_RECORD}")]
    return max((int(name) for name in names if name.isascii() and name.isdigit()), default=-1) + 1


def last_record(run_path: Path) -> KeptRecord | None:
    """The last record of a run; None for runs of earlier versions, which have none.

    Raises:
        RunError: when it cannot be read, or names a copy outside its folder.
    """
    number = number_of_records(run_path)
    if number == 0:
        return None
    folder = run_path / _FOLDER / str(number - 1)
    path = folder / _RECORD
    try:
        record = TypeAdapter(CodeRecord).validate_json(_content(path), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RunError(f"{path}: {place}{': ' if place else ''}{first['msg']}") from error
    for file in record.files:
        if file.copy is not None and not _is_inside(folder / file.copy, folder / "files"):
            raise RunError(f"{path}: copy is {file.copy!r}; must lie in {folder / 'files'}")
        if file.module is not None and file.module.split(".")[0] in sys.stdlib_module_names:
            raise RunError(f"{path}: module is {file.module!r}; must not be one of Python's own")
    return KeptRecord(folder, record)


def _content(path: Path) -> bytes:
    """The content of a file.

    Raises:
        RunError: when there is no such file, or it cannot be read.
    """
    try:
        if not path.is_file():  # a pipe would be waited for
            raise RunError(f"cannot read {path}: there is no such file")
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}") from error


def _is_inside(path: Path, folder: Path) -> bool:
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # a name that no file can have, links in a circle
        return False


def differing(files: Iterable[KeptFile], places: Mapping[str, Path]) -> list[str]:
    """Those files that are not there any more, or have another content; their names, as far as they tell them apart.

    places: where each file is now, by the path that it had.
    """
    changed = []
    for file in files:
        now = hash_of(places[file.path])
        if now != file.sha256:
            changed.append(f"{places[file.path].name}{' (gone)' if now is None else ''}")
    return changed
