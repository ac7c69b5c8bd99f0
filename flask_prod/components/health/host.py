"""What this host has left: disk, memory below the container's limit, and paths that can be written."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from flask_prod.core.component import Check, Finding
from flask_prod.core.memory import CGROUP, MEMBERSHIP, of_container

_MB = 1024 * 1024


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


def memory(most: float, cgroup: Path = CGROUP, membership: Path = MEMBERSHIP) -> Check:
    """Return a check that warns when more than this share of the container's memory is in use."""

    def probe() -> Finding:
        found = of_container(cgroup, membership)
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
