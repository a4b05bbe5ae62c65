"""Memory that a training step frees is there for the next one, without page faults."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

BLOCK, ROUNDS, PAGE = 2**26, 20, 4096
FAULTS = f"""
import resource, sys
import torch
if sys.argv[1] == "keep":
    from denoise_se.heap import keep_freed_memory
    keep_freed_memory()
for _ in range({ROUNDS}):
    torch.ones({BLOCK}, dtype=torch.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    torch.ones({BLOCK}, dtype=torch.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """Page faults of allocating, filling and freeing a block of 64 MB twenty times, after as many times before."""
    run = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="the heap of glibc is meant"
)
def test_freed_memory_is_used_again_without_page_faults():
    assert faults("keep") < 0.01 * ROUNDS * BLOCK / PAGE
    assert faults("default") > 100 * faults("keep"), "glibc has learned to keep it, so heap.py is not needed any more"
