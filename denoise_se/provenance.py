"""What trained a model, and on what: the program's version and commit, and the machine."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from denoise_se.threads import visible_cores


def hardware() -> str:
    """The processor or GPU of this machine and its core count, as one line."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    name = torch.cpu.get_capabilities().get("cpu_name") or platform.processor() or platform.machine()
    return f"{name}, {visible_cores()} cores"


def processor() -> str:
    """The processor as the operating system names it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def release() -> str:
    """The version of the program."""
    try:
        return version("denoise-se")
    except PackageNotFoundError:
        return "not installed"


def commit() -> str:
    """The short commit of the program's checkout, or nothing when it is installed from a wheel."""
    where = Path(__file__).parent
    if not (where.parent / ".git").exists():
        return ""
    command = ["git", "-C", str(where), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # no git here
        return ""
