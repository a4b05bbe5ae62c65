"""Free memory is what the machine has, and what the control groups leave of their limits."""

from __future__ import annotations

import pytest

from denoise_se import memory
from denoise_se.memory import free_memory


@pytest.fixture
def machine(tmp_path, monkeypatch, control_groups):
    """A machine with 1000 kB available; gives a function that writes files of control groups."""
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text("MemTotal:  4000 kB\nMemAvailable:   1000 kB\n")
    return control_groups


def test_free_memory_is_what_the_kernel_says_is_available(machine):
    assert free_memory() == 1_024_000


@pytest.mark.parametrize(("limit", "free"), [("300000\n", 300_000), ("max\n", 1_024_000), ("9999999999\n", 1_024_000)])
def test_the_limit_of_a_group_of_version_2_counts(machine, limit, free):
    machine(own="0::/a/b\n", **{"a/memory.max": limit})
    assert free_memory() == free


def test_the_limit_of_a_group_of_version_1_counts(machine):
    machine(own="4:cpu:/y\n2:memory:/x\n", **{"memory/x/memory.limit_in_bytes": "200000\n"})
    assert free_memory() == 200_000


def test_what_programs_hold_of_a_groups_limit_is_not_free(machine):
    machine(own="0::/a\n", **{"a/memory.max": "900000\n", "a/memory.stat": "anon 200000\nfile 500000\nshmem 100000\n"})
    assert free_memory() == 600_000


def test_elsewhere_it_is_what_the_machine_has(machine, tmp_path, monkeypatch):
    (tmp_path / "meminfo").unlink()
    monkeypatch.setattr(memory.os, "sysconf", {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}.__getitem__, raising=False)
    assert free_memory() == 4_096_000
    monkeypatch.delattr(memory.os, "sysconf")
    assert free_memory() is None
