"""How many threads to compute with: the cores that this process was granted, not those that the machine has."""

from __future__ import annotations

import math
import os
from pathlib import Path

from denoise_se.control_group import group_folders


def granted_cores() -> int:
    """The cores that the affinity mask, the control group's quota and OMP_NUM_THREADS leave; at least 1.

    A container's quota is a share of time on all cores: more threads than it pays for wait for each other.
    """
    cores = visible_cores()
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isascii() and asked.isdecimal() and int(asked) > 0:
        cores = min(cores, int(asked))
    quota = group_quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def visible_cores() -> int:
    """The cores that this process may run on by its affinity mask, or that the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def group_quota() -> float | None:
    """The smallest quota of this process's control group and those above it, in cores; None without one.

    Linux: `cpu.max` of version 2, `cpu.cfs_quota_us` over `cpu.cfs_period_us` of version 1.
    """
    quotas = [quota for folder in group_folders("cpu") if (quota := _quota(folder)) is not None]
    return min(quotas, default=None)


def _quota(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()[:2]
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="ascii")
            period = (folder / "cpu.cfs_period_us").read_text(encoding="ascii")
        share = float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max", no such file, or not for us to read
        return None
    return share if share > 0 else None
