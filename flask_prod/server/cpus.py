"""How many CPUs this process may really use: in a container that is less than the machine has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def available_cpus(root: Path = CGROUP, own: Path = OWN_CGROUP) -> float:
    """Return the CPUs given by affinity and by the quota of every control group above this process."""
    cpus = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(os.cpu_count() or 1)
    return min([cpus, *_quotas(root, own)])


def _quotas(root: Path, own: Path) -> Iterator[float]:
    """Yield the quotas in force, in CPUs; nothing where there is none or where it cannot be read."""
    for line in _read(own).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            for folder in _upwards(root, path):
                yield from _quota(*_read(folder / "cpu.max").split())
        elif "cpu" in controllers.split(","):
            for folder in _upwards(root / "cpu", path):
                quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
                yield from _quota(quota.strip(), period.strip())


def _upwards(root: Path, path: str) -> Iterator[Path]:
    # Inside a container the path may be that of the host, which is not mounted here; the root always counts.
    folder = root / path.strip("/")
    while folder != root and root in folder.parents:
        yield folder
        folder = folder.parent
    yield root


def _quota(*words: str) -> Iterator[float]:
    if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]):
        yield int(words[0]) / int(words[1])


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
