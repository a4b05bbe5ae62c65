"""The control groups that this process runs in, by which containers and schedulers limit it. Linux alone has them."""

from __future__ import annotations

from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def group_folders(controller: str) -> list[Path]:
    """The folders of this process's groups for a controller ("cpu", "memory") and of all above them, in both versions.

    Inside a container its own group is the root. Not all of the folders need exist.
    """
    try:
        lines = OWN_GROUPS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        lines = []
    folders = [CGROUPS, CGROUPS / controller]
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        root = CGROUPS / controller if controllers else CGROUPS
        group = root / path.lstrip("/")
        folders += [folder for folder in (group, *group.parents) if folder.is_relative_to(root)]
    return folders
