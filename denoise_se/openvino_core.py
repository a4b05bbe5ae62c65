"""The one OpenVINO core of a process.

Its CPU plugin gives the thread that loads it a stack for signal handlers, and takes that away with the core without
telling the system; the next signal (Ctrl-C, SIGTERM) would then crash the process. So there is one core, and it stays.
"""

from __future__ import annotations

from functools import cache

import openvino as ov


@cache
def core() -> ov.Core:
    """The core, made at its first use and kept until the process ends."""
    return ov.Core()
