"""One computation per host without a server: locks on a file, and a place to leave the result for who waited."""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from .board import Marks
from .entry import Entry, pack, unpack

Release: TypeAlias = Callable[[], None]

_LOCK = struct.Struct("hhqqi4x")
"""`struct flock` of Linux on 64 bits: type, whence, start, length, process."""

_MARKS = struct.Struct("<QQQQ")
"""The marks that do not hang on tags: of everything, and of the key."""

_OPEN_FILE_LOCK = getattr(fcntl, "F_OFD_SETLK", 0)
_PLACES = 64
"""Files in which results are left; a later one takes the place of an earlier one."""


class HostLocks:
    """Locks by name between the threads and processes of one host; one that dies holds none.

    All lie in one file, each on a byte of its own: nothing is left behind, and nothing has to be cleaned up.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def take(self, name: str) -> Release | None:
        """Return what releases the lock, None while somebody has it; where nothing can be locked, all have it."""
        if self._path is None or not _OPEN_FILE_LOCK:
            return _nothing
        try:
            file = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:
            return _nothing
        try:
            fcntl.fcntl(file, _OPEN_FILE_LOCK, _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _byte(name), 1, 0))
        except BlockingIOError:
            os.close(file)
            return None
        except OSError:
            os.close(file)
            return _nothing
        return lambda: os.close(file)


class Handover:
    """Results of computations, left for the processes of this host that waited for them."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def leave(self, key: str, entry: Entry, marks: Marks) -> None:
        """Leave *entry* for the others; a disk that takes no more loses it, and they compute."""
        if self._folder is None:
            return
        part = ""
        with suppress(OSError):
            handle, part = tempfile.mkstemp(".part", dir=self._folder)
            with os.fdopen(handle, "wb") as file:
                file.write(_MARKS.pack(*(part for mark in marks[:2] for part in mark)) + pack(key, entry))
            os.replace(part, self._place(self._folder, key))
            part = ""
        if part:
            with suppress(OSError):
                os.unlink(part)

    def fetch(self, key: str) -> tuple[Entry, Marks] | None:
        """Return what was left for *key* last, if nothing has taken its place, and the marks it was made under."""
        if self._folder is None:
            return None
        try:
            data = self._place(self._folder, key).read_bytes()
        except OSError:
            return None
        entry = unpack(key, data[_MARKS.size :], "host") if len(data) > _MARKS.size else None
        if entry is None:
            return None
        numbers = _MARKS.unpack_from(data)
        return entry, (numbers[:2], numbers[2:])

    def _place(self, folder: Path, key: str) -> Path:
        return folder / f"cache-result-{_byte(key) % _PLACES}"


def _byte(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) >> 2


def _nothing() -> None:
    return
