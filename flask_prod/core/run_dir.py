"""Where the processes of one service on one host leave word for one another: workers, job workers, commands."""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import tempfile
from pathlib import Path

from .settings import ServiceSettings


def run_dir(service: ServiceSettings, root_path: str) -> Path | None:
    """Return the directory, made if missing; None where none can be written.

    Without RUN_DIR it is the same for every process that serves the application at *root_path* under the same
    name, environment and user. One that somebody else owns is not used: what lies there would be obeyed.
    """
    try:  # without any temporary directory there is none
        place = Path(service.run_dir) if service.run_dir else _default(service, root_path)
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = place.lstat()
    except OSError:
        return None
    ours = stat.S_ISDIR(found.st_mode) and (bool(service.run_dir) or found.st_uid == os.getuid())
    return place if ours and os.access(place, os.W_OK) else None


def _default(service: ServiceSettings, root_path: str) -> Path:
    who = f"{service.service_name}\0{service.environment}\0{root_path}".encode()
    return Path(tempfile.gettempdir()) / f"flask-prod-{os.getuid()}-{hashlib.sha256(who).hexdigest()[:16]}"


class Leader:
    """Tells which of several processes does what one should do: it holds a lock that ends with the process."""

    def __init__(self, folder: Path | None, name: str) -> None:
        self._path = None if folder is None else folder / f"{name}.lock"
        self._lock: int | None = None

    def leads(self) -> bool:
        """Tell whether this process is the one, taking a free place; where nothing can be locked, each is."""
        if self._path is None or self._lock is not None:
            return True
        try:
            lock = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:
            return True  # a warning twice is better than none
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return False
        self._lock = lock
        return True

    def resign(self) -> None:
        """Leave the place to another process; also what a forked child calls, which must not hold its parent's."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
