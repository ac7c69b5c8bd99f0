"""How much memory this service uses, and how much it may: the container's limit, else the machine's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
MEMINFO = Path("/proc/meminfo")
_NO_LIMIT = 1 << 60
"""cgroup v1 writes a number of about this size where there is no limit."""


def of_container(cgroup: Path = CGROUP, membership: Path = MEMBERSHIP) -> tuple[int, int] | None:
    """Return bytes in use, without what the kernel can take back at once, and the limit; None if there is none."""
    for folder, use, limit in _places(cgroup, membership):
        most = _number(folder / limit)
        used = _number(folder / use)
        if most is not None and used is not None and 0 < most < _NO_LIMIT:
            return max(0, used - _inactive(folder / "memory.stat")), most
    return None


def of_machine(meminfo: Path = MEMINFO) -> tuple[int, int] | None:
    """Return bytes in use on this machine, and how many it has; None where the system does not say."""
    try:
        lines = (line.split() for line in meminfo.read_text().splitlines())
        found = {words[0]: int(words[1]) * 1024 for words in lines if len(words) > 1}
        return found["MemTotal:"] - found["MemAvailable:"], found["MemTotal:"]
    except (OSError, ValueError, KeyError):
        return None


def _places(cgroup: Path, membership: Path) -> Iterator[tuple[Path, str, str]]:
    """Yield where version 2 and version 1 keep the figures, this process's own group before the root it sees."""
    try:
        lines = [line.split(":", 2) for line in membership.read_text().splitlines()]
    except OSError:
        lines = []
    own = next((line[2] for line in lines if len(line) == 3 and line[0] == "0"), "/")
    older = next((line[2] for line in lines if len(line) == 3 and "memory" in line[1].split(",")), "/")
    for path in (own, "/"):
        yield cgroup / path.lstrip("/"), "memory.current", "memory.max"
    for path in (older, "/"):
        yield cgroup / "memory" / path.lstrip("/"), "memory.usage_in_bytes", "memory.limit_in_bytes"


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _inactive(path: Path) -> int:
    try:
        pairs = (line.split() for line in path.read_text().splitlines())
        return next((int(pair[1]) for pair in pairs if pair[0] in ("inactive_file", "total_inactive_file")), 0)
    except (OSError, ValueError, IndexError):
        return 0
