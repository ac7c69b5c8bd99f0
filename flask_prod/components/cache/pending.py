"""What has to be forgotten in Redis once it is back: kept for the whole host, so that it outlives a process."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

MOST = 10_000
"""Names that are remembered; with more, everything is forgotten when Redis is back."""

_FLAGS = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
_MOST_BYTES = 4 * 1024**2


class Pending:
    """Names of keys in Redis that are out of date there; in a file where there can be one, else in the process."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._names: set[str] = set()
        self._everything = False

    def add(self, names: Iterable[str]) -> None:
        """Remember *names*."""
        if len(self._names) > MOST:
            self._everything = True
            return
        new = [name for name in names if name not in self._names]
        self._names.update(new)
        if new:
            self._write(msgspec.json.encode(new))

    def add_all(self) -> None:
        """Remember that everything has to be forgotten."""
        self._everything = True
        self._write(b"null")

    def settle(self, forget: Callable[[list[str] | None], None]) -> bool:
        """Have all names forgotten, None standing for everything; False while another process is at it.

        What *forget* raises leaves them remembered.
        """
        with self._locked() as file:
            if file is None and self._path is not None:
                return False
            names, everything = self._read(file)
            if everything or names:
                forget(None if everything else list(names))
            if file is not None:
                with suppress(OSError):
                    os.ftruncate(file, 0)
        self._names -= names
        self._everything = False
        return True

    def _read(self, file: int | None) -> tuple[set[str], bool]:
        """Return all names of the host; whatever cannot be read stands for everything."""
        names, everything = set(self._names), self._everything or len(self._names) > MOST
        if file is None:
            return names, everything
        try:
            if os.fstat(file).st_size > _MOST_BYTES:
                return names, True
            for line in os.pread(file, _MOST_BYTES, 0).splitlines():
                found = msgspec.json.decode(line, type=list[str] | None)
                everything = everything or found is None
                names.update(found or ())
        except (OSError, msgspec.MsgspecError):
            return names, True
        return names, everything or len(names) > MOST

    def _write(self, line: bytes) -> None:
        if self._path is None:
            return
        with suppress(OSError):  # a full disk: this process still knows
            file = os.open(self._path, _FLAGS | os.O_APPEND, 0o600)
            try:
                if os.fstat(file).st_size <= _MOST_BYTES:
                    os.write(file, line + b"\n")
            finally:
                os.close(file)

    @contextmanager
    def _locked(self) -> Iterator[int | None]:
        """Open the file for one process alone; None where there is none or another process has it."""
        file = None
        if self._path is not None:
            try:
                file = os.open(self._path, _FLAGS, 0o600)
            except OSError:
                self._path = None  # from here on each process for itself
        try:
            if file is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield file
        except BlockingIOError:
            yield None
        finally:
            if file is not None:
                os.close(file)
