"""Entries as files: shared by the processes of one machine, kept over a restart."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from flask_prod.core.component import Event, Finding
from flask_prod.core.errors import ConfigError

from .board import Board
from .entry import Entry, pack, unpack
from .envelope import PLAIN
from .locks import HostLocks, Release
from .memory import number_of
from .stores import Damaged, Ticket, remaining

_PART = ".part"
_BOARD = ".board"
_LOCK = ".lock"
_OURS = frozenset((_BOARD, _LOCK))
_LOOK_EVERY = 256
"""Writes between two looks at how full the folder is: reading it costs about a millisecond per thousand files."""

_TELL_EVERY = 60.0
"""Seconds between two events about a disk that takes no more."""


class FileStore:
    """A folder of files, one per entry, bounded by bytes and number; the oldest go first."""

    name = "file"

    def __init__(
        self,
        folder: Path,
        most_bytes: int,
        most_entries: int,
        emit: Callable[[Event], None],
        damaged: Damaged,
    ) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._most_entries = most_entries
        self._emit = emit
        self._damaged = damaged
        self._told_at = -_TELL_EVERY
        self._writes = 0
        self.after_fork()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise ConfigError(
                [f"CACHE_DIR is {folder}, which cannot be written ({error.strerror}): name another folder."]
            ) from error
        self.board = Board(folder / _BOARD)
        self._locks = HostLocks(folder / _LOCK)

    def get(self, key: str, tags: Sequence[str] = ()) -> Entry | None:
        """Return what has not ended and was not invalidated."""
        path = self._path(key)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        entry = unpack(key, data, "file")
        if entry is None:
            self._damaged()
        if (
            entry is None
            or entry.is_over(time.time())
            or (entry.tags and self.board.stamps(tag for tag, _ in entry.tags) != entry.tags)
        ):
            self._remove(path)
            return None
        return entry

    def peek(self, key: str) -> Entry | None:
        """Have nothing in memory."""
        return None

    def get_many(self, keys: Sequence[str]) -> list[Entry | None]:
        """Return several."""
        return [self.get(key) for key in keys]

    def ticket(self, key: str, tags: Sequence[str] = ()) -> Ticket:
        """Return the cells of the board in the folder."""
        return Ticket(self.board.marks(key, tags), self.board.stamps(tags))

    def keep(self, key: str, entry: Entry, ticket: Ticket) -> bool:
        """Store; False when the disk is full or read-only."""
        return self.board.hold(ticket.marks) and self._write(key, entry)

    def set_many(self, entries: Mapping[str, Entry]) -> bool:
        """Store; False when the disk is full or read-only."""
        self.board.touch(entries)
        written = [self._write(key, entry) for key, entry in entries.items()]
        return all(written)

    def add(self, key: str, entry: Entry) -> bool:
        """Store unless there is one; of several processes that try at once, one is told True."""
        # Reading removes what has ended; os.link puts nothing in the place of what another process just added.
        return self.get(key) is None and self._write(key, entry, os.link)

    def increment(self, key: str, by: int, ttl: float) -> int | None:
        """Count under a lock."""
        release = self._locks.take(f"number:{key}")
        while release is None:
            time.sleep(0.001)
            release = self._locks.take(f"number:{key}")
        try:
            found, now = self.get(key), time.time()
            number = by if found is None else number_of(found) + by
            ends = (now + ttl if ttl else 0.0) if found is None else found.expires
            entry = Entry(PLAIN, msgspec.json.encode(number), now, ends, ends)
            return number if self._write(key, entry) else None
        finally:
            release()

    def ttl(self, key: str) -> float | None:
        """Return what is left of its time."""
        return remaining(self.get(key), time.time())

    def delete_many(self, keys: Sequence[str]) -> list[str]:
        """Forget."""
        gone = {key for key in keys if self._remove(self._path(key))}
        self.board.touch(keys, tags=keys)
        return [key for key in keys if self.board.forget(key) or key in gone]

    def delete_pattern(self, pattern: str) -> int:
        """Refuse: names of files are hashes, which match nothing."""
        raise NotImplementedError("delete_pattern needs CACHE_BACKEND=redis, tiered or memory; use tags instead.")

    def invalidate(self, tags: Sequence[str]) -> bool:
        """Tell all processes that use the folder."""
        self.board.touch(tags=tags)
        return True

    def clear(self) -> bool:
        """Forget everything in the folder."""
        self.board.touch_all()
        for path in tuple(self._files()):
            self._remove(path)
        return True

    def lock(self, key: str, seconds: float) -> Release | None:
        """Lock on this host; the system releases it when its owner dies."""
        return self._locks.take(key)

    def claim(self, name: str, seconds: float) -> bool:
        """Ask for an entry that says so."""
        ends = time.time() + seconds
        return self.add(f"claim:{name}", Entry(PLAIN, b"1", time.time(), ends, ends))

    def again(self, key: str, tags: Sequence[str] = ()) -> Entry | None:
        """Look once more."""
        return self.get(key)

    def tick(self) -> None:
        """See that the board is still there."""
        self.board.check()

    def probe(self) -> Finding | None:
        """Say whether the folder can still be written."""
        if os.access(self._folder, os.W_OK):
            return None
        return Finding("warn", "The folder of the cache cannot be written: nothing is cached.")

    def size(self) -> dict[str, object]:
        """Say nothing: it takes as many looks as there are files."""
        return {}

    def start(self) -> None:
        """Have nothing to start."""

    def close(self) -> None:
        """Have nothing to end."""

    def after_fork(self) -> None:
        """Renew the lock."""
        self._lock = threading.Lock()

    def _path(self, key: str) -> Path:
        return self._folder / hashlib.sha256(key.encode()).hexdigest()

    def _write(self, key: str, entry: Entry, place: Callable[[str, Path], None] = os.replace) -> bool:
        """Write beside and put in place, so that a reader sees all of an entry or nothing."""
        self._make_room()
        part = ""
        try:
            handle, part = tempfile.mkstemp(_PART, dir=self._folder)
            with os.fdopen(handle, "wb") as file:
                file.write(pack(key, entry))
            place(part, self._path(key))
        except FileExistsError:
            return False
        except OSError as error:
            self._tell(error)
            return False
        finally:
            if part:
                with suppress(OSError):
                    os.unlink(part)
        return True

    def _counts(self, entry: Entry) -> bool:
        return not entry.tags or self.board.stamps(tag for tag, _ in entry.tags) == entry.tags

    def _remove(self, path: Path) -> bool:
        try:
            path.unlink()
        except OSError:
            return False
        return True

    def _files(self) -> Iterator[Path]:
        with suppress(OSError):
            yield from (path for path in self._folder.iterdir() if path.name not in _OURS)

    def _make_room(self) -> None:
        self._writes += 1
        if self._writes % _LOOK_EVERY != 1 or not self._lock.acquire(blocking=False):
            return
        try:
            self._remove_oldest()
        finally:
            self._lock.release()

    def _remove_oldest(self) -> None:
        found = []
        for path in self._files():
            with suppress(OSError):
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
        found.sort(reverse=True)
        room = self._most_bytes
        for number, (_changed, size, path) in enumerate(found):
            room -= size
            if room < 0 or number >= self._most_entries:
                self._remove(path)

    def _tell(self, error: OSError) -> None:
        now = time.monotonic()
        if now - self._told_at < _TELL_EVERY:
            return
        self._told_at = now
        message = f"The cache cannot write its folder ({error.strerror}); pages are computed each time."
        self._emit(Event("prod.cache.unwritable", message, "error", {"folder": str(self._folder)}))
