"""Mesh files that MuJoCo does not read, in a form that it does: STL as text, and COLLADA with the extra `collada`."""

# trimesh is optional.
# pyright: reportMissingImports=false

from __future__ import annotations

import importlib.util
import re
import struct
from functools import lru_cache
from pathlib import Path

import numpy as np

READABLE = (".stl", ".obj", ".msh")  # what MuJoCo reads, STL in binary
COLLADA = ".dae"

_HEADER = 80  # bytes before the number of triangles
_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_CORNER = re.compile(rb"vertex\s+(\S+)\s+(\S+)\s+(\S+)")


def converts_collada() -> bool:
    """Whether what converts COLLADA files is installed, the extra `collada`."""
    return all(importlib.util.find_spec(name) is not None for name in ("trimesh", "collada"))


def converted(path: Path) -> bytes | None:
    """The content of a mesh file as binary STL; None if MuJoCo reads the file as it is.

    Raises:
        ValueError: for a file that holds no triangles.
    """
    if path.suffix.lower() == COLLADA:
        return _from_collada(path, path.stat().st_mtime_ns)
    if not _is_ascii_stl(path):
        return None
    try:
        return binary_stl(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def binary_stl(text: bytes) -> bytes:
    """The triangles of an STL file that is text, in binary.

    Raises:
        ValueError: when the corners are not triples of numbers, or are not three for each triangle.
    """
    corners = np.array(_CORNER.findall(text)).astype(np.float32)
    if not len(corners) or len(corners) % 3:
        raise ValueError(f"the mesh has {len(corners)} corners; must have three for each triangle")
    triangles = np.zeros(len(corners) // 3, dtype=_TRIANGLE)
    triangles["corners"] = corners.reshape(-1, 3, 3)
    return bytes(_HEADER) + struct.pack("<I", len(triangles)) + triangles.tobytes()


@lru_cache(maxsize=256)
def _from_collada(path: Path, changed: int) -> bytes:
    """The meshes of a COLLADA file as one, read again when the file has `changed`."""
    import trimesh

    try:
        return bytes(trimesh.load(path, force="mesh").export(file_type="stl"))
    except Exception as error:  # whatever the parser of another package raises
        raise ValueError(f"{path.name} cannot be converted: {type(error).__name__}: {error}") from error


def _is_ascii_stl(path: Path) -> bool:
    """Whether a file is an STL file as text; binary ones may begin alike, but have the size that they tell."""
    if path.suffix.lower() != ".stl":
        return False
    with path.open("rb") as file:
        start = file.read(_HEADER + 4)
    if not start.startswith(b"solid"):
        return False
    count = struct.unpack("<I", start[_HEADER:])[0] if len(start) == _HEADER + 4 else 0
    return path.stat().st_size != _HEADER + 4 + count * _TRIANGLE.itemsize
