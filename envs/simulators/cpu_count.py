"""The number of available CPUs."""

from __future__ import annotations

import os
from pathlib import Path


def available_cpus() -> int:
    """CPUs this process may use, by its affinity and the quota of its container (cgroup v1 or v2)."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_cpus(Path("/sys/fs/cgroup"))
    return cpus if quota is None else max(1, min(cpus, int(quota)))


def _cgroup_cpus(root: Path) -> float | None:
    """The container's quota in CPUs, or None if there is no limit."""
    try:
        if (root / "cpu.max").exists():  # v2: "200000 100000" or "max 100000"
            quota, period = (root / "cpu.max").read_text().split()
        else:  # v1: -1 for no limit
            quota = (root / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text().strip()
    except (OSError, ValueError):
        return None
    return None if quota in ("max", "-1") else float(quota) / float(period)
