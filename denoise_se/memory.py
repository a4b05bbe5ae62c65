"""How much main memory this process may fill: what the machine has free, and what its control group grants."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from denoise_se.control_group import group_folders

MEMINFO = Path("/proc/meminfo")


def free_memory() -> int | None:
    """In bytes; None where the system does not say, as Windows.

    Of a control group it is the limit, `memory.max` of version 2 and `memory.limit_in_bytes` of version 1, less what
    programs hold of it; cached files give way.
    """
    limits = [limit for folder in group_folders("memory") if (limit := _limit(folder)) is not None]
    machine = _available()
    return min([*limits, *([] if machine is None else [machine])], default=None)


def _available() -> int | None:
    """What the kernel can hand out without swapping, by Linux; else all that the machine has."""
    try:
        for line in MEMINFO.read_text(encoding="ascii").splitlines():
            name, _, amount = line.partition(":")
            if name == "MemAvailable":
                return int(amount.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # no such call, or no such name
        return None


def _limit(folder: Path) -> int | None:
    for name, held in (("memory.max", ("anon", "shmem")), ("memory.limit_in_bytes", ("total_rss", "total_shmem"))):
        try:
            limit = int((folder / name).read_text(encoding="ascii"))
        except (OSError, ValueError):  # no such file, or "max"
            continue
        return max(0, limit - sum(_counted(folder / "memory.stat", held)))
    return None


def _counted(path: Path, names: tuple[str, ...]) -> Iterator[int]:
    """The values of these names in a file of lines `name value`."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return
    for name, _, value in (line.partition(" ") for line in lines):
        if name in names and value.strip().isdecimal():
            yield int(value)
