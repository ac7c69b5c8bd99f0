"""Numbered places for the processes of a service: held by a file lock, which ends however its process ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MOST_PROCESSES = 4096

LIVE = "gauge_live"
"""How the files of gauges begin that count only while their process lives."""

PRIVATE = "lock"
"""The file that says: this directory was made for one life of the service, and goes with it."""


class Slots:
    """The places of one owner in a directory, and the files that belong to them.

    A process that takes over a place goes on with the counters it finds there, for as long as the service lives:
    while a process holds a place, or the parent of one that held it (gunicorn's master) is there.
    """

    def __init__(self, directory: Path, owner: str) -> None:
        self._directory = directory
        self._owner = owner

    def claim(self) -> tuple[int, int]:
        """Take the lowest free place: its number, and the open file that holds its lock."""
        self._directory.mkdir(parents=True, exist_ok=True)
        with self._alone():
            if not self._life_goes_on():
                self._forget("*", "*")
            for number in range(_MOST_PROCESSES):
                lock = _lock(self._lock_file(number))
                if lock is None:
                    continue
                self._forget(LIVE + "*", str(number))  # live gauges of a predecessor have ended with it
                os.ftruncate(lock, 0)
                os.pwrite(lock, f"{os.getpid()} {os.getppid()} {_born(os.getppid())}".encode(), 0)
                return number, lock
        raise OSError(f"{self._directory} has {_MOST_PROCESSES} processes already")

    def living(self) -> Iterator[tuple[int, int]]:
        """Yield number and process id of every place that is held."""
        for path in self._directory.glob(f"slot_{self._owner}.*.lock"):
            with open(path, "rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    yield int(path.name.split(".")[-2]), int((file.read().split() or [b"0"])[0])

    def _lock_file(self, number: int | str) -> Path:
        return self._directory / f"slot_{self._owner}.{number}.lock"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one process at a time decide who takes which place, and what is forgotten."""
        claiming = os.open(
            self._directory / f"claim_{self._owner}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(claiming, fcntl.LOCK_EX)
            yield
        finally:
            os.close(claiming)

    def _life_goes_on(self) -> bool:
        if (self._directory / PRIVATE).exists() or any(self.living()):
            return True
        return any(_parent_lives(path) for path in self._directory.glob(f"slot_{self._owner}.*.lock"))

    def _forget(self, kinds: str, number: str) -> None:
        for stale in self._directory.glob(f"{kinds}_{self._owner}.{number}.*"):
            if stale.suffix != ".lock":
                stale.unlink(missing_ok=True)


def _lock(path: Path) -> int | None:
    """Open and lock a place's file; None when a living process holds it."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return lock


def _parent_lives(path: Path) -> bool:
    """Tell whether the parent of a place's last holder (gunicorn's master, a job worker) is still there."""
    words = path.read_bytes().decode(errors="replace").split()
    return len(words) == 3 and words[2] != "-" and _born(words[1]) == words[2]


def _born(pid: int | str) -> str:
    """Return when a process began, in ticks since the machine did; `-` when it is no more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return "-"
