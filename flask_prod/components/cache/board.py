"""Where invalidations are told on one host: a small file that every process of a service has in its memory.

A name (of a key or a tag) has a cell, found by its hash; whoever invalidates the name writes a new random number
into the cell. What is kept in a process's own memory remembers the numbers its cells had: looking whether they are
still the same costs a memory read for each, and needs no message, no thread and no server. Two names that share
a cell are invalidated together, which costs a computation and is never wrong.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from random import SystemRandom
from typing import TypeAlias

Marks: TypeAlias = tuple[tuple[int, int], ...]
"""Cells and the numbers that they had."""

_CELLS = 16_384
_BYTES = _CELLS * 8
_MOST_NAMED = 10_000
_ALL = 0
_ANY = 1
_FIRST = 2
_KEY, _TAG = 0, 1

_random = SystemRandom().getrandbits  # a forked child draws other numbers than its parent


class Board:
    """The cells of one cache on one host; without a folder, those of this process and what it forks."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._named: set[str] = set()
        self.open()

    @property
    def shared(self) -> bool:
        """Whether processes that were not forked from this one see it too."""
        return self._inode != 0

    def open(self) -> None:
        """Map the file, made and filled with random numbers if missing."""
        self._inode = 0
        mapped = self._map(self._path) if self._path is not None else None
        if mapped is None:
            mapped = mmap.mmap(-1, _BYTES)
            mapped[:] = os.urandom(_BYTES)
        self.cells = memoryview(mapped).cast("Q")

    def check(self) -> bool:
        """Open the file anew when somebody has removed it (cleaners of temporary files do); False if so.

        Numbers of the new file are others, so that all that was kept under the old one counts no more.
        """
        if self._path is None or not self._inode:
            return True
        try:
            os.utime(self._path)
            if os.stat(self._path).st_ino == self._inode:
                return True
        except OSError:
            pass
        self.open()
        return False

    def marks(self, key: str, tags: Iterable[str] = ()) -> Marks:
        """Return what must still hold when an entry of *key* with *tags* is used; ask before its computation."""
        cells = self.cells
        marks = [(_ALL, cells[_ALL])]
        slot = _slot(key, _KEY)
        marks.append((slot, cells[slot]))
        for tag in tags:
            slot = _slot(tag, _TAG)
            marks.append((slot, cells[slot]))
            self._name(tag)
        return tuple(marks)

    def forget(self, tag: str) -> bool:
        """Tell whether this process has taken marks of *tag* since it was forgotten last."""
        known = tag in self._named
        self._named.discard(tag)
        return known

    def hold(self, marks: Marks) -> bool:
        """Tell whether nothing was invalidated since *marks* were taken."""
        cells = self.cells
        for slot, number in marks:  # noqa: SIM110  # all() makes a generator, on every hit
            if cells[slot] != number:
                return False
        return True

    def stamps(self, tags: Iterable[str]) -> tuple[tuple[str, int], ...]:
        """Return the number of each tag."""
        return tuple((tag, self.cells[_slot(tag, _TAG)]) for tag in tags)

    def slot(self, tag: str) -> int:
        """Return the cell of a tag."""
        return _slot(tag, _TAG)

    def latest(self) -> int:
        """Return a number that changes with every invalidation whatever."""
        return int(self.cells[_ANY])

    def touch(self, keys: Iterable[str] = (), tags: Iterable[str] = ()) -> None:
        """Invalidate; no entry that this process or another one of the host keeps counts when it returns."""
        # This cell first: who took marks in between sees that something is happening.
        self.cells[_ANY] = _random(64)
        for key in keys:
            self.cells[_slot(key, _KEY)] = _random(64)
        for tag in tags:
            self.cells[_slot(tag, _TAG)] = _random(64)

    def set(self, key: str, payload: bytes) -> None:
        """Invalidate what was kept under *key*, except where it is the same payload.

        Workers that each look, find nothing and set the same value then do not throw out one another's.
        """
        self.cells[_ANY] = _random(64)
        digest = hashlib.blake2b(payload, digest_size=8, salt=zlib.crc32(key.encode()).to_bytes(4))
        self.cells[_slot(key, _KEY)] = int.from_bytes(digest.digest())

    def touch_all(self) -> None:
        """Invalidate everything."""
        self.cells[_ANY] = _random(64)
        self.cells[_ALL] = _random(64)

    def _name(self, tag: str) -> None:
        if len(self._named) >= _MOST_NAMED:
            self._named.clear()
        self._named.add(tag)

    def _map(self, path: Path) -> mmap.mmap | None:
        try:
            file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX)  # one process fills it; the lock ends with the descriptor
            if os.fstat(file).st_size < _BYTES:
                os.pwrite(file, os.urandom(_BYTES), 0)
            self._inode = os.fstat(file).st_ino
            return mmap.mmap(file, _BYTES)
        except (OSError, ValueError):
            self._inode = 0
            return None
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # the map keeps a descriptor of its own, and with it the lock
            os.close(file)


def _slot(name: str, kind: int) -> int:
    return _FIRST + zlib.crc32(name.encode(), kind) % (_CELLS - _FIRST)
