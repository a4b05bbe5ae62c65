"""Threads are as many as the cores that were granted: by affinity, by the control group's quota, by the user."""

from __future__ import annotations

import os

import pytest

from denoise_se.threads import granted_cores, group_quota


@pytest.fixture
def machine(monkeypatch, control_groups):
    """A machine of 8 cores without a quota; gives a function that writes files of control groups."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return control_groups


def test_without_a_quota_it_is_the_affinity_mask(machine):
    assert granted_cores() == 8 and group_quota() is None


@pytest.mark.parametrize(
    ("limit", "cores"), [("200000 100000", 2), ("150000 100000", 2), ("10000 100000", 1), ("max 100000", 8), ("", 8)]
)
def test_a_quota_of_version_2_is_rounded_up(machine, limit, cores):
    machine(own="0::/\n", **{"cpu.max": limit})
    assert granted_cores() == cores


def test_the_smallest_quota_of_the_groups_above_counts(machine):
    machine(own="0::/a/b/c\n", **{"a/cpu.max": "300000 100000", "a/b/c/cpu.max": "600000 100000", "cpu.max": "max 1"})
    assert granted_cores() == 3


def test_version_1_has_its_quota_in_two_files(machine):
    own = "4:cpu,cpuacct:/x\n3:cpuset:/y\n"
    machine(own=own, **{"cpu/x/cpu.cfs_quota_us": "400000\n", "cpu/x/cpu.cfs_period_us": "100000\n"})
    assert granted_cores() == 4
    machine(own=own, **{"cpu/x/cpu.cfs_quota_us": "-1\n"})
    assert granted_cores() == 8


@pytest.mark.parametrize(("asked", "cores"), [("3", 3), ("99", 8), ("0", 8), ("many", 8)])
def test_omp_num_threads_lowers_it(machine, monkeypatch, asked, cores):
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert granted_cores() == cores
