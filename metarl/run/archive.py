"""The archive of a trained agent: what an evaluation needs of a run, in one small file of data without any code.

A zip file with these members and no others:

    README.md                   the model card
    config.json  meta.json      as in a run
    state.json                  one checkpoint: plain values, and {"tensor": NAME} in the place of each tensor
    tensors/NAME.npy            the tensors, in numpy's format
    evaluations/SPLIT.json      the adaptation curve on tasks of a split, without the scores of single tasks

An archive may come from anywhere. Its members are read into memory, up to a limit, and never written to disk; reading
them makes numbers, text, lists and tensors, and nothing else.
"""

from __future__ import annotations

import io
import json
import math
import re
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metarl.errors import RunError
from metarl.optim import is_optimizer_state
from metarl.run.directory import Run
from metarl.run.files import reason, write_whole

CARD, CONFIG, META, STATE = "README.md", "config.json", "meta.json", "state.json"
LARGEST_TEXT = 20_000_000  # bytes of a member that is text
LARGEST_ARCHIVE = 1_000_000_000  # bytes of all members, unpacked
MOST_MEMBERS = 10_000
RESULTS = Path("runs", "packed")  # where what is measured with an archive is saved, in the working directory

_TENSOR = "tensor"  # the key that marks the place of a tensor
_TENSOR_MEMBER = "tensors/{}.npy"
_EVALUATION_MEMBER = re.compile(r"evaluations/(train|val|test|ood)\.json")
_NAME = re.compile(r"[\w.-]{1,200}", re.ASCII)  # of a tensor
_DTYPES = frozenset(map(np.dtype, ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "?")))


def write_archive(
    path: Path,
    *,
    card: str,
    config: Mapping[str, Any],
    meta: Mapping[str, Any],
    state: Mapping[str, Any],
    evaluations: Mapping[str, Mapping[str, Any]],
) -> None:
    """Write an archive, whole or not at all; the same content gives the same bytes.

    state: a checkpoint; the states of optimisers and random streams in it are left out.

    Raises:
        RunError: when the state holds something that an archive cannot, or the disk refuses it.
    """
    tensors: dict[str, np.ndarray] = {}
    plain = _taken_apart({name: value for name, value in state.items() if name != "generators"}, "", tensors)
    members = {CARD: card.encode(), CONFIG: _json(config), META: _json(meta), STATE: _json(plain)}
    members |= {f"evaluations/{split}.json": _json(evaluation) for split, evaluation in evaluations.items()}
    for name, values in tensors.items():
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, values, version=(1, 0), allow_pickle=False)
        members[_TENSOR_MEMBER.format(name)] = buffer.getvalue()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)  # dated 1980, whenever it is made
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, packed.getvalue())
    except OSError as error:
        raise RunError(f"cannot write {path}: {reason(error)}") from error


class PackedRun(Run):
    """A trained agent in an archive: a run that can be evaluated and played, and not trained.

    What is measured with it is saved in `results`.
    """

    def __init__(self, path: Path, name: str | None = None) -> None:
        """Check the archive's list of members.

        name: of the agent, below runs/packed; None: the file's name without its suffix.

        Raises:
            RunError: when it is not an archive of a trained agent.
        """
        super().__init__(path)
        self.results = RESULTS / (name or path.stem)
        try:
            with zipfile.ZipFile(path) as file:
                self._sizes = _checked_members(path, file.infolist())
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise RunError(f"{path} is not the archive of a trained agent: {reason(error)}") from error

    @property
    def is_packed(self) -> bool:
        return True

    @property
    def card(self) -> str:
        """The model card, in Markdown.

        Raises:
            RunError: when it cannot be read.
        """
        return self._read(CARD).decode(errors="replace")

    @property
    def videos(self) -> Path:
        return self._results_folder() / "videos"

    def config(self) -> dict[str, Any]:
        return self._object(CONFIG)

    def meta(self) -> dict[str, Any]:
        try:
            return self._object(META)
        except RunError:
            return {}

    def progress(self) -> list[dict[str, float]]:
        """Empty: an archive has no log of the training."""
        return []

    def baselines(self) -> dict[str, list[float]]:
        return {}

    def evaluation(self, split: str) -> dict[str, Any]:
        """The evaluation on a split that the archive brings along.

        Raises:
            RunError: when there is none, or it cannot be read.
        """
        return self._object(f"evaluations/{split}.json")

    def checkpoint(self, asked: str) -> str:
        """The name of the checkpoint that was packed, whatever is asked for."""
        packed = self.meta().get("packed")
        name = packed.get("checkpoint") if isinstance(packed, dict) else None
        return name if isinstance(name, str) else asked

    def checkpoint_path(self, name: str) -> Path:
        return self.path / STATE

    def has(self, name: str) -> bool:
        return True

    def checkpoints(self) -> list[str]:
        return [self.checkpoint("best")]

    def load(self, name: str) -> dict[str, Any]:
        named = {member for member in self._sizes if member.startswith("tensors/")}
        state = self._put_together(self._object(STATE), named)
        if named:
            raise RunError(f"{self.path}: {STATE} does not name {min(named)}")
        return {**state, "generators": {}}

    def _put_together(self, value: Any, unused: set[str]) -> Any:
        if isinstance(value, list):
            return [self._put_together(item, unused) for item in value]
        if not isinstance(value, dict):
            return value
        if value.keys() != {_TENSOR}:
            return {key: self._put_together(item, unused) for key, item in value.items()}
        name = value[_TENSOR]
        member = _TENSOR_MEMBER.format(name)
        if not isinstance(name, str) or member not in unused:
            raise RunError(f"{self.path}: {STATE} names the tensor {name!r}, which is not there, or twice")
        unused.discard(member)
        try:
            return torch.from_numpy(_array(self._read(member, LARGEST_ARCHIVE)))
        except ValueError as error:
            raise RunError(f"{self.path}: {member} is not a tensor: {reason(error)}") from error

    def _object(self, member: str) -> dict[str, Any]:
        try:
            value = json.loads(self._read(member))
        except (ValueError, RecursionError) as error:
            raise RunError(f"cannot read {self.path / member}: {reason(error)}") from error
        if not isinstance(value, dict):
            raise RunError(f"{self.path / member} holds a {type(value).__name__}; must hold one object")
        return value

    def _read(self, member: str, limit: int = LARGEST_TEXT) -> bytes:
        if member not in self._sizes:
            raise RunError(f"{self.path} has no {member}")
        if self._sizes[member] > limit:
            raise RunError(f"{self.path}: {member} has {self._sizes[member]:,} bytes; must have at most {limit:,}")
        try:
            with zipfile.ZipFile(self.path) as file, file.open(member) as opened:
                content = opened.read(self._sizes[member] + 1)  # the sum of these sizes is checked
        except Exception as error:  # a damaged member raises whatever its first bad byte leads to
            raise RunError(f"cannot read {self.path / member}: {reason(error)}") from error
        if len(content) != self._sizes[member]:
            raise RunError(f"{self.path} has been changed while it was read")
        return content

    def _results_folder(self) -> Path:
        try:
            self.results.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot create {self.results}: {reason(error)}") from error
        return self.results


def _checked_members(path: Path, members: list[zipfile.ZipInfo]) -> dict[str, int]:
    """The sizes of an archive's members, by name.

    Raises:
        RunError: naming the first member that an archive may not have.
    """
    if len(members) > MOST_MEMBERS:
        raise RunError(f"{path} has {len(members):,} members; must have at most {MOST_MEMBERS:,}")
    sizes: dict[str, int] = {}
    for member in members:
        name = member.filename
        named = f"{path} holds {name[:200]!r}"
        if stat.S_ISLNK(member.external_attr >> 16):
            raise RunError(f"{named}, which is a link; an archive must hold plain files only")
        if member.flag_bits & 1:
            raise RunError(f"{named}, which is encrypted; must be readable without a password")
        if not _is_allowed(name):
            raise RunError(f"{named}; an archive has only {CARD}, {CONFIG}, {META}, {STATE}, evaluations and tensors")
        if name in sizes:
            raise RunError(f"{named} twice; each member must be there once")
        sizes[name] = member.file_size
    if sum(sizes.values()) > LARGEST_ARCHIVE:
        raise RunError(f"{path} has {sum(sizes.values()):,} bytes unpacked; must have at most {LARGEST_ARCHIVE:,}")
    missing = [name for name in (CARD, CONFIG, META, STATE) if name not in sizes]
    if missing:
        raise RunError(f"{path} is not the archive of a trained agent: it has no {missing[0]}")
    return sizes


def _is_allowed(name: str) -> bool:
    folder, _, rest = name.partition("/")
    is_tensor = folder == "tensors" and rest.endswith(".npy") and _NAME.fullmatch(rest.removesuffix(".npy"))
    return name in (CARD, CONFIG, META, STATE) or bool(is_tensor or _EVALUATION_MEMBER.fullmatch(name))


def _taken_apart(value: Any, where: str, tensors: dict[str, np.ndarray]) -> Any:
    """A state as JSON values, its tensors moved to `tensors`, without the states of optimisers."""
    if isinstance(value, torch.Tensor):
        if not _NAME.fullmatch(where):
            raise RunError(f"{where} cannot be packed: a name must have letters, digits, dots, dashes and underscores")
        tensors[where] = _checked_array(value, where)
        return {_TENSOR: where}
    if isinstance(value, Mapping):
        names = [name for name in value if not isinstance(name, str)]
        if names or value.keys() == {_TENSOR}:
            raise RunError(f"{where} cannot be packed: its names must be text, and not {_TENSOR!r} alone")
        kept = {name: item for name, item in value.items() if not is_optimizer_state(item)}
        return {name: _taken_apart(item, f"{where}.{name}" if where else name, tensors) for name, item in kept.items()}
    if isinstance(value, (list, tuple)):
        return [_taken_apart(item, f"{where}.{index}", tensors) for index, item in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise RunError(f"{where} cannot be packed: it is a {type(value).__name__}")


def _checked_array(value: torch.Tensor, where: str) -> np.ndarray:
    try:
        array = value.detach().cpu().contiguous().numpy()
    except TypeError as error:  # such as bfloat16, which numpy does not have
        raise RunError(f"{where} cannot be packed: {reason(error)}") from error
    if array.dtype not in _DTYPES:
        raise RunError(f"{where} cannot be packed: it is of type {array.dtype}")
    return array


def _array(content: bytes) -> np.ndarray:
    """The array in a file of numpy's format, whose size is checked before memory is taken.

    Raises:
        ValueError: when it is not one of numbers, or shorter or longer than its shape says.
    """
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"numpy's format {version}; must be (1, 0)")
    shape, is_transposed, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype not in _DTYPES or is_transposed:
        raise ValueError(f"type {dtype}{', by columns' if is_transposed else ''}; must be plain numbers by rows")
    data = memoryview(content)[file.tell() :]
    if any(size < 0 for size in shape) or math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"shape {shape} of {dtype} does not fit its {len(data):,} bytes")
    return np.frombuffer(data, dtype).reshape(shape).copy()


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
