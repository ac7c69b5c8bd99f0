"""What this host has left: disk, memory below the container's limit, and paths that can be written."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from flask_prod.core.component import Check, Finding

CGROUP = Path("/sys/fs/cgroup")
_MB = 1024 * 1024
_NO_LIMIT = 1 << 60
"""cgroup v1 writes a number of about this size where there is no limit."""


def disk(paths: Sequence[Path], least: float) -> Check:
    """Return a check that warns below this free share of a file system, and fails below a fifth of it."""

    def probe() -> Finding:
        shares = {str(path): _free(path) for path in paths}
        path, share = min(shares.items(), key=lambda pair: pair[1])
        data = {"path": path, "free_percent": round(share * 100, 1)}
        if share >= least:
            return Finding(data=data)
        return Finding("fail" if share < least / 5 else "warn", f"{share:.1%} of the disk of {path} is free", data)

    return Check("disk", probe, critical=False)


def memory(most: float, cgroup: Path = CGROUP, membership: Path = Path("/proc/self/cgroup")) -> Check:
    """Return a check that warns when more than this share of the container's memory is in use."""

    def probe() -> Finding:
        found = _of_cgroup(cgroup, membership)
        if found is None:
            return Finding(detail="there is no limit")
        used, limit = found
        data = {"used_mb": used // _MB, "limit_mb": limit // _MB}
        if used <= most * limit:
            return Finding(data=data)
        return Finding("warn", f"{used / limit:.0%} of the container's memory is in use", data)

    return Check("memory", probe, critical=False)


def storage(paths: Iterable[str]) -> Check:
    """Return a check that writes, reads and removes a small file in each of these folders."""
    folders = tuple(Path(path) for path in paths)

    def probe() -> Finding:
        for folder in folders:
            try:
                _write(folder)
            except OSError as error:
                return Finding("fail", f"{folder} cannot be written: {error.strerror or type(error).__name__}")
        return Finding(data={"folders": len(folders)})

    return Check("storage", probe)


def _free(path: Path) -> float:
    usage = shutil.disk_usage(next(one for one in (path, *path.parents) if one.exists()))
    return usage.free / usage.total if usage.total else 1.0


def _write(folder: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".health-") as file:
        file.write(b"health")
        file.flush()
        if os.pread(file.fileno(), 6, 0) != b"health":
            raise OSError(0, "what was written reads otherwise")


def _of_cgroup(cgroup: Path, membership: Path) -> tuple[int, int] | None:
    """Return bytes in use, without what the kernel can take back at once, and the limit; None if there is none."""
    for folder, use, limit in _places(cgroup, membership):
        most = _number(folder / limit)
        used = _number(folder / use)
        if most is not None and used is not None and 0 < most < _NO_LIMIT:
            return max(0, used - _inactive(folder / "memory.stat")), most
    return None


def _places(cgroup: Path, membership: Path) -> Iterable[tuple[Path, str, str]]:
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
