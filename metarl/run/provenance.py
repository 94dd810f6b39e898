"""Where a result came from: the command, the code, the packages and the machine."""

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


def provenance(command: list[str]) -> dict[str, Any]:
    """The command, the time, the code's commit, the packages' versions and the machine, for a run's meta.json."""
    return {
        "command": shlex.join(command),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "git": _git_commit(),
        "versions": {"python": platform.python_version(), **versions()},
        "platform": platform.platform(),
        "cpu_cores": os.cpu_count(),
    }


def versions() -> dict[str, str | None]:
    """Versions of the packages that results depend on; None where one is not installed."""
    return {package: _version(package) for package in _PACKAGES}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_commit() -> dict[str, Any] | None:
    """The commit that this code is from and whether files differ from it; None outside a repository."""
    folder = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if not git("ls-files", Path(__file__).name):
            return None  # an installed copy that happens to lie inside somebody else's repository
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.CalledProcessError):
        return None
