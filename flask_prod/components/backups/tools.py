"""Find pg_dump and pg_restore of a version that knows the server's."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from .manifest import BackupError

_VERSION = re.compile(r"\(PostgreSQL\) (\d+)")


def find_tool(name: str, folder: str, least: int) -> Path:
    """Return the newest *name* there is; BackupError when there is none, or only older ones than *least*."""
    places = [Path(folder) / name] if folder else list(_usual(name))
    found = [(version, place) for place in places if (version := _major(place))]
    if not found:
        where = f"in BACKUP_PG_BIN ({folder})" if folder else "on PATH or in /usr/lib/postgresql"
        raise BackupError(
            f"There is no {name} {where}: install PostgreSQL's client programs, such as "
            f"postgresql-client-{least}, or set BACKUP_PG_BIN."
        )
    version, place = max(found, key=lambda one: one[0])
    if version < least:
        raise BackupError(
            f"{place} is of PostgreSQL {version}, the server of {least}: its client programs must not be older. "
            f"Install postgresql-client-{least}, or set BACKUP_PG_BIN."
        )
    return place


def _usual(name: str) -> Iterator[Path]:
    on_path = shutil.which(name)
    if on_path:
        yield Path(on_path)
    yield from Path("/usr/lib/postgresql").glob(f"*/bin/{name}")


def _major(place: Path) -> int:
    """Return the version that a program says it has, 0 when it says nothing."""
    try:
        said = subprocess.run([place, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return 0
    match = _VERSION.search(said)
    return int(match[1]) if match else 0
