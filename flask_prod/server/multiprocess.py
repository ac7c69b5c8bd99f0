"""The directory in which several processes of one service keep their metrics for whichever of them is scraped.

prometheus_client chooses its way of counting when it is imported, by PROMETHEUS_MULTIPROC_DIR: so `prepare`
must come first. One directory belongs to one container: process ids of another one mean nothing here.
"""

from __future__ import annotations

import atexit
import fcntl
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger(__name__)

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
PREFIX = "flask-prod-metrics-"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # directories there are made by mkdtemp, for us alone
_LOCK = "lock"
_TOO_LATE = (
    "prometheus_client was imported before gunicorn's configuration: metrics will be those of one worker at a "
    "time. Import it in the application, not in a configuration file."
)
_ONE_WORKER = (
    "%s: running one worker, since each would show its own numbers. Mount a writable /dev/shm or /tmp, or set "
    "%s to a directory that can be written."
)
_SLACK = 2.0
"""Seconds by which a file may seem older than the process that made it: clock ticks and boot time are rounded."""


def prepare() -> Path | None:
    """Set PROMETHEUS_MULTIPROC_DIR to a directory that can be written; None, with a warning, when there is none.

    A directory named by the user is made if missing and stays at the end; otherwise one is made in memory or in
    the temporary directory, and removed when this process ends.
    """
    if "prometheus_client" in sys.modules and VARIABLE not in os.environ:
        logger.warning(_TOO_LATE)
    given = os.environ.get(VARIABLE)
    folder = _usable(Path(given)) if given else None
    if folder is None:
        folder = _make(given)
    if folder is None:
        os.environ.pop(VARIABLE, None)
        return None
    os.environ[VARIABLE] = str(folder)
    _forget_earlier(folder, os.getpid())
    return folder


def sweep(folder: Path) -> None:
    """Remove what processes left that are gone, among them those of an earlier life of this service."""
    for file in folder.glob("*.db"):
        pid = _pid(file)
        if pid is not None and not _may_be_owner(file, pid):
            file.unlink(missing_ok=True)


def mark_dead(folder: Path, pid: int) -> None:
    """Forget the live gauges of a process that has ended; its counters stay, since totals must not shrink."""
    for file in folder.glob(f"gauge_live*_{pid}.db"):
        file.unlink(missing_ok=True)


def current() -> Path | None:
    """Return the directory in use, None when this is a single process."""
    folder = os.environ.get(VARIABLE)
    return Path(folder) if folder else None


def _usable(folder: Path) -> Path | None:
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    return None


def _make(given: str | None) -> Path | None:
    """Make a directory of our own, hold its lock for as long as we or our children live, and remove old ones."""
    reason = f"{VARIABLE}={given} cannot be written" if given else "no metrics directory can be made"
    folder = new_folder()
    if folder is None:
        logger.warning(_ONE_WORKER, reason, VARIABLE)
    elif given:
        logger.warning("%s; metrics are kept in %s instead.", reason, folder)
    return folder


def new_folder() -> Path | None:
    """Make a directory in memory, or else in the temporary directory, that goes with this process."""
    for place in dict.fromkeys((SHARED_MEMORY, *_temporary())):
        with suppress(OSError):
            _remove_abandoned(place)
            folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
            _hold(folder)
            return folder
    return None


def _temporary() -> Iterator[Path]:
    with suppress(FileNotFoundError):
        yield Path(tempfile.gettempdir())


def _hold(folder: Path) -> None:
    # The lock is inherited by forked workers and lost by exec: it lives exactly as long as somebody counts here.
    lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    maker = os.getpid()

    def remove() -> None:
        if os.getpid() == maker:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)

    atexit.register(remove)


def _remove_abandoned(place: Path) -> None:
    """Remove directories whose master was killed: nobody holds their lock."""
    for folder in place.glob(f"{PREFIX}*"):
        with suppress(OSError):
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _forget_earlier(folder: Path, pid: int) -> None:
    """Remove files that an earlier process with our own id left: we would go on with its numbers."""
    for file in folder.glob(f"*_{pid}.db"):
        if not _may_be_owner(file, pid):
            file.unlink(missing_ok=True)


def _pid(file: Path) -> int | None:
    number = file.stem.rpartition("_")[2]
    return int(number) if number.isdigit() else None


def _may_be_owner(file: Path, pid: int) -> bool:
    """Say whether the process of this id lives and began before the file was last written."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False  # somebody else's process has the id now
    try:
        return file.stat().st_mtime >= _began(pid) - _SLACK
    except OSError:
        return True


def _began(pid: int) -> float:
    """Return when a process began, in seconds of the clock; OSError where /proc does not say."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime"))
    return int(boot.split()[1]) + ticks / os.sysconf("SC_CLK_TCK")
