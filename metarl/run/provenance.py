"""The provenance of a result: the command, the code, the packages and the machine."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("metarl", "torch", "gymnasium", "mujoco", "numpy", "stable-baselines3", "tensorboard")


def provenance(command: list[str], project: Path | None = None) -> dict[str, Any]:
    """The command, the time, the commits, the packages' versions and the machine, for a run's meta.json.

    project: a folder of the user's project; None where nothing of the user's is needed.
    """
    return {
        "command": shlex.join(command),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "git": _our_commit(),
        "project": None if project is None else _project(project),
        "versions": {"python": platform.python_version(), **versions()},
        "platform": platform.platform(),
        "cpu_cores": os.cpu_count(),
        "same_bits_with": same_bits_with(),
        "job": job(),
    }


def job() -> str | None:
    """The name of torchrun's job, whose processes share the run; None without one."""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return None if name == "none" else name


def same_bits_with() -> dict[str, Any]:
    """With what one seed, and the versions above, give the same run again: processor, threads, numba where it is used.

    numba: its version; None where it is not installed or METARL_NUMBA turns it off.
    """
    import torch  # here, as whoever only lists runs does not need it

    numba = None if os.environ.get("METARL_NUMBA") == "0" else _version("numba")
    return {"processor": _processor(), "threads": torch.get_num_threads(), "numba": numba}


def _processor() -> str:
    """The processor's name, as far as the system says."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> dict[str, str | None]:
    """Versions of the packages that results depend on; None where one is not installed."""
    return {package: _version(package) for package in _PACKAGES}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _our_commit() -> dict[str, Any] | None:
    """The commit that this code is from and whether files differ from it; None outside a repository."""
    file = Path(__file__)
    try:
        if not _git(file.parent, "ls-files", file.name):
            return None  # an installed copy that happens to lie inside somebody else's repository
    except (OSError, subprocess.CalledProcessError):
        return None
    return _commit(file.parent)


def _project(folder: Path) -> dict[str, Any] | None:
    """The commit of the user's project, and where that is; None outside a repository."""
    commit = _commit(folder)
    return None if commit is None else {"folder": _git(folder, "rev-parse", "--show-toplevel"), **commit}


def _commit(folder: Path) -> dict[str, Any] | None:
    """The commit of the repository that a folder is in, and whether files differ from it or are not in it yet."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        untracked = _git(folder, "ls-files", "--others", "--exclude-standard", ".")  # here, not in all of a repository
        changed = bool(untracked or _git(folder, "status", "--porcelain", "-uno"))
    except (OSError, subprocess.CalledProcessError):  # a repository without a commit, for one
        return None
    return {"commit": commit, "changed": changed}


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
