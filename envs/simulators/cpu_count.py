"""The number of available CPUs."""

from __future__ import annotations

import os
from pathlib import Path


def available_cpus() -> int:
    """CPUs this process may use: its affinity, the quota of its container (cgroup v1 or v2), and OMP_NUM_THREADS."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, threads = _cgroup_cpus(Path("/sys/fs/cgroup")), os.environ.get("OMP_NUM_THREADS", "")
    limits = ([] if quota is None else [int(quota)]) + ([int(threads)] if threads.isdecimal() else [])
    return max(1, min([cpus, *limits]))


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
