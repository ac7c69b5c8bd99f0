"""Where lines go: one write per line, straight to the descriptor."""

from __future__ import annotations

import os
import select
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

_PATIENCE = 0.1
"""Seconds that a line waits for a full pipe; those after it do not wait until it flows again."""

_RECHECK = 1.0
"""Seconds after which a file is looked for under its name again: logrotate may have moved it."""


class Output:
    """A standard stream: `descriptor` 1 or 2. *on_drop* is told of every line that found no room."""

    def __init__(self, descriptor: int, on_drop: Callable[[], None]) -> None:
        self._fd = descriptor
        self._own = False
        self._on_drop = on_drop
        self._clogged = False
        self._reopen_pipe()

    def write(self, line: bytes) -> None:
        """Write one whole line, or none: never blocks for long, never raises."""
        try:
            written = os.write(self._fd, line)
            while written < len(line):  # a line longer than the pipe has room for
                written += self._patiently(line[written:])
            self._clogged = False
        except BlockingIOError:
            self._retry(line)
        except OSError:
            self._on_drop()

    def close(self) -> None:
        """Close what was opened here; later lines are dropped."""
        descriptor, self._fd = self._fd, -1
        if self._own and descriptor >= 0:
            os.close(descriptor)

    def _reopen_pipe(self) -> None:
        """Take a description of the pipe of our own, where not blocking disturbs nobody who shares it."""
        try:
            if stat.S_ISFIFO(os.fstat(self._fd).st_mode):
                flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC
                self._fd = os.open(f"/proc/self/fd/{self._fd}", flags)
                self._own = True
        except OSError:
            return  # another user's pipe, or no /proc: it blocks as any pipe does

    def _retry(self, line: bytes) -> None:
        try:
            if not self._clogged:
                self._clogged = True
                self._patiently(line)
                self._clogged = False
                return
        except OSError:
            pass
        self._on_drop()

    def _patiently(self, rest: bytes) -> int:
        select.select((), (self._fd,), (), _PATIENCE)
        return os.write(self._fd, rest)


class FileOutput(Output):
    """A file, appended to; OSError when it cannot be opened."""

    def __init__(self, path: Path, on_drop: Callable[[], None]) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._checked = time.monotonic()
        super().__init__(self._open(), on_drop)
        self._own = True

    def write(self, line: bytes) -> None:
        """Write one line, to the file that goes by the name now."""
        if time.monotonic() - self._checked > _RECHECK:
            self._follow()
        super().write(line)

    def after_fork(self) -> None:
        """Renew the lock, which another thread of the parent may have held."""
        self._lock = threading.Lock()

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def _follow(self) -> None:
        with self._lock:
            self._checked = time.monotonic()
            try:
                if self._fd < 0 or os.path.samestat(os.fstat(self._fd), os.stat(self._path)):
                    return
            except FileNotFoundError:
                pass
            except OSError:
                return
            self._replace()

    def _replace(self) -> None:
        try:
            fresh = self._open()
        except OSError:
            return  # the old file still takes lines
        os.dup2(fresh, self._fd, inheritable=False)  # one step: other threads write to the same number
        os.close(fresh)
