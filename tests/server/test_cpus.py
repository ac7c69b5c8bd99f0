"""CPUs of a container, read from control groups of both versions."""

from __future__ import annotations

import os
from pathlib import Path

from flask_prod.server.cpus import available_cpus

MACHINE = len(os.sched_getaffinity(0))


def write(path: Path, text: str) -> None:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_no_quota_means_the_affinity(tmp_path: Path) -> None:
    """Where no control group limits, or none can be read, the CPUs this process may run on count."""
    write(tmp_path / "own", "0::/\n")
    write(tmp_path / "fs/cpu.max", "max 100000\n")

    assert available_cpus(tmp_path / "fs", tmp_path / "own") == MACHINE
    assert available_cpus(tmp_path / "none", tmp_path / "nowhere") == MACHINE


def test_version_two_takes_the_smallest_above(tmp_path: Path) -> None:
    """A quota of any group above this process limits it."""
    write(tmp_path / "own", "0::/pod/container\n")
    write(tmp_path / "fs/pod/cpu.max", "50000 100000\n")
    write(tmp_path / "fs/pod/container/cpu.max", "80000 100000\n")

    assert available_cpus(tmp_path / "fs", tmp_path / "own") == 0.5


def test_version_one_takes_quota_and_period(tmp_path: Path) -> None:
    """The older control groups say it in two files; -1 means no limit."""
    write(tmp_path / "own", "4:cpu,cpuacct:/docker/abc\n")
    write(tmp_path / "fs/cpu/cpu.cfs_quota_us", "25000\n")
    write(tmp_path / "fs/cpu/cpu.cfs_period_us", "100000\n")
    assert available_cpus(tmp_path / "fs", tmp_path / "own") == 0.25

    write(tmp_path / "fs/cpu/cpu.cfs_quota_us", "-1\n")
    assert available_cpus(tmp_path / "fs", tmp_path / "own") == MACHINE


def test_path_cannot_leave_the_tree(tmp_path: Path) -> None:
    """A path of the host that is not mounted here falls back to the root of the tree."""
    write(tmp_path / "own", "0::/../../host/slice\n")
    write(tmp_path / "fs/cpu.max", "10000 100000\n")

    assert available_cpus(tmp_path / "fs", tmp_path / "own") == 0.1
