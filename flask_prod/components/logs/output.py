"""Where lines go: one write per line, straight to the descriptor."""

from __future__ import annotations

import os
import select
import socket
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

_PATIENCE = 0.1
"""Seconds that a line waits for a full pipe; those after it do not wait until it flows again."""

_RECHECK = 1.0
"""Seconds after which a file is looked for under its name again: logrotate may have moved it."""

_WITHOUT_WAITING = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


class Output:
    """A standard stream: `descriptor` 1 or 2. *on_drop* is told of every line that found no room.

    Lines flow again as soon as there is room; `notice`, when set, makes the line that says how many are missing.
    """

    def __init__(self, descriptor: int, on_drop: Callable[[], None]) -> None:
        self._fd = descriptor
        self._own = False
        self._on_drop = on_drop
        self._clogged = False
        self._dropped = 0
        self._rest = b""
        self._rest_lock = threading.Lock()
        self._put: Callable[[int, bytes], int] = os.write
        self._socket: socket.socket | None = None
        self.notice: Callable[[int], bytes] | None = None
        self._never_block()

    def write(self, line: bytes) -> None:
        """Write one whole line, or none: never blocks for long, never raises."""
        try:
            if self._rest or self._dropped:
                self._catch_up()
            written = self._put(self._fd, line)
        except BlockingIOError:
            self._retry(line)
        except OSError:
            self._drop()
        else:
            self._clogged = False
            if written < len(line):
                self._finish(line[written:])

    def settle(self) -> None:
        """Write what waits for room, if there is room now; called every second."""
        if self._rest or self._dropped:
            try:
                self._catch_up()
                self._clogged = False
            except OSError:
                return

    def after_fork(self) -> None:
        """Forget what the parent had not written yet: it will write that itself."""
        self._rest_lock = threading.Lock()
        self._rest, self._dropped = b"", 0

    def reopen(self) -> None:
        """Do nothing: a standard stream has no name under which it could be opened anew."""

    def close(self) -> None:
        """Close what was opened here; later lines are dropped."""
        descriptor, self._fd = self._fd, -1
        self._put = os.write
        if self._socket is not None:
            self._socket.close()
        if self._own and descriptor >= 0:
            os.close(descriptor)

    def _never_block(self) -> None:
        """Make writes that do not wait, and disturb nobody who shares the stream."""
        try:
            kind = os.fstat(self._fd).st_mode
        except OSError:
            return
        if stat.S_ISSOCK(kind):  # the journal of systemd
            self._socket = socket.socket(fileno=os.dup(self._fd))
            self._put = self._send
        elif stat.S_ISFIFO(kind):
            self._reopen_pipe()

    def _send(self, _descriptor: int, content: bytes) -> int:
        return self._socket.send(content, _WITHOUT_WAITING) if self._socket is not None else 0

    def _reopen_pipe(self) -> None:
        """Take a description of the pipe of our own, whose flags are nobody else's."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            self._fd = os.open(f"/proc/self/fd/{self._fd}", flags)
            self._own = True
        except OSError:
            self._put = _put_if_ready  # another user's pipe, or no /proc

    def _catch_up(self) -> None:
        """Write the end of a line that was cut, then how many are missing; raises while there is no room."""
        with self._rest_lock:
            while self._rest:
                self._rest = self._rest[self._put(self._fd, self._rest) :]
            if self._dropped and self.notice is not None:
                if not select.select((), (self._fd,), (), 0)[1]:
                    raise BlockingIOError  # room for this line, but not for what comes after it
                line = self.notice(self._dropped)
                self._rest = line[self._put(self._fd, line) :]
            self._dropped = 0

    def _retry(self, line: bytes) -> None:
        """Wait a little for room, unless a line before this one did so in vain."""
        if self._clogged:
            self._drop()
            return
        self._clogged = True
        self._wait(_PATIENCE)
        self.write(line)

    def _finish(self, rest: bytes) -> None:
        """Write the end of a line longer than there was room for, now or before the next line."""
        with self._rest_lock:
            self._rest += rest
        end = time.monotonic() + _PATIENCE
        while self._rest and time.monotonic() < end:
            self._wait(end - time.monotonic())
            try:
                self._catch_up()
            except BlockingIOError:
                continue
            except OSError:
                break
        self._clogged = bool(self._rest)

    def _wait(self, seconds: float) -> None:
        try:
            select.select((), (self._fd,), (), max(0.0, seconds))
        except (OSError, ValueError):  # closed meanwhile, or a number that select cannot take
            return

    def _drop(self) -> None:
        self._dropped += 1
        self._on_drop()


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
        Output.write(self, line)  # super() would cost a tenth of the line

    def settle(self) -> None:
        """Let go of a file that was moved away, also when nothing is written."""
        if time.monotonic() - self._checked > _RECHECK / 2:
            self._follow()
        super().settle()

    def after_fork(self) -> None:
        """Renew the locks, which another thread of the parent may have held."""
        self._lock = threading.Lock()
        super().after_fork()

    def reopen(self) -> None:
        """Open the file anew before the next line; takes no lock, as a signal may come at any moment."""
        self._checked = float("-inf")

    def _never_block(self) -> None:
        """Leave the descriptor as it was opened: without waiting, in case the name is that of a pipe."""

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        return os.open(self._path, flags, 0o640)

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


def _put_if_ready(descriptor: int, content: bytes) -> int:
    """Write to a pipe that would block, as much as it certainly has room for."""
    if not select.select((), (descriptor,), (), 0)[1]:
        raise BlockingIOError
    return os.write(descriptor, content[: select.PIPE_BUF])
