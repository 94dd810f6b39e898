"""The Python interpreter that has the package `metaworld`, which cannot live beside ours: it needs MuJoCo 3.3.0.

$METARL_METAWORLD_PYTHON names it; otherwise it is that of the virtual environment that `metarl setup metaworld` makes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from metarl.errors import UserError

VARIABLE = "METARL_METAWORLD_PYTHON"
# gymnasium's MuJoCo environments import packaging, which none of the two packages asks for.
REQUIREMENTS = ("metaworld==3.1.1", "packaging")


def default_folder() -> Path:
    """The folder of the virtual environment unless another one is chosen: ~/.cache/metarl/metaworld."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "metarl" / "metaworld"


def python_in(folder: Path) -> Path:
    """The interpreter of a virtual environment."""
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def find_python() -> Path:
    """The interpreter to run Meta-World with.

    Raises:
        UserError: when there is none, with what to do about it.
    """
    named = os.environ.get(VARIABLE)
    python = Path(named).expanduser() if named else python_in(default_folder())
    if python.is_file():
        return python
    if named:
        raise UserError(f"{VARIABLE} is {named!r}; must be the path of a Python interpreter that has metaworld")
    raise UserError(
        "Meta-World needs an interpreter of its own, which is not there yet: metarl setup metaworld makes it, "
        f"or name one in {VARIABLE}"
    )


def make_interpreter(folder: Path) -> Path:
    """Make a virtual environment with the package in a folder, unless it is there; returns its interpreter.

    Raises:
        UserError: when that fails, with the last line of what pip or venv said.
    """
    python = python_in(folder)
    if not python.is_file():
        _run([sys.executable, "-m", "venv", str(folder)], f"no virtual environment can be made in {folder}")
    _run([str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS], f"pip cannot install {REQUIREMENTS[0]}")
    return python


def _run(command: list[str], what_failed: str) -> None:
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        output = result.stderr or result.stdout
    except OSError as error:
        raise UserError(f"{what_failed}: {error}") from error
    if result.returncode:
        errors = [line for line in output.splitlines() if line.startswith("ERROR")] or output.split("\n")[-2:-1]
        raise UserError(f"{what_failed}: {errors[-1] if errors else f'exit status {result.returncode}'}")
