"""The one OpenVINO core of a process.

Its CPU plugin gives the thread that loads it a stack for signal handlers, and takes that away with the core without
telling the system; the next signal (Ctrl-C, SIGTERM) would then crash the process. So there is one core, and it stays.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import openvino as ov

HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}


@cache
def core() -> ov.Core:
    """The core, made at its first use and kept until the process ends."""
    return ov.Core()


def properties(precision: str, threads: int) -> dict[str, Any]:
    """How a network is compiled for the CPU: for one image at a time, on so many threads."""
    return {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # two processes would be pinned to the same cores
    }
