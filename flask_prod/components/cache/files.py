"""Entries as files: shared by the processes of one machine, kept over a restart."""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from flask_prod.core.component import Event, Finding
from flask_prod.core.errors import ConfigError

_EXPIRES = struct.Struct(">d")
_PART = ".part"
_LOOK_EVERY = 256
"""Writes between two looks at how full the folder is: reading it costs about a millisecond per thousand files."""

_TELL_EVERY = 60.0
"""Seconds between two events about a disk that takes no more."""


class FileStore:
    """A folder of files, one per entry, bounded by bytes and number; the oldest go first."""

    name = "file"

    def __init__(self, folder: Path, most_bytes: int, most_entries: int, emit: Callable[[Event], None]) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._most_entries = most_entries
        self._emit = emit
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

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return what has not expired."""
        return [self._read(self._path(key)) for key in keys]

    def set_many(self, entries: Mapping[str, bytes], ttl: float) -> bool:
        """Store; False when the disk is full or read-only."""
        written = [self._write(key, data, ttl) for key, data in entries.items()]
        return all(written)

    def add(self, key: str, data: bytes, ttl: float) -> bool:
        """Store unless there is one; of several processes that try at once, one is told True."""
        # Reading removes what has expired; os.link puts nothing in the place of what another process just added.
        return self._read(self._path(key)) is None and self._write(key, data, ttl, os.link)

    def delete_many(self, keys: Sequence[str]) -> list[str]:
        """Forget."""
        return [key for key in keys if self._remove(self._path(key))]

    def clear(self) -> bool:
        """Forget everything in the folder."""
        for path in tuple(self._files()):
            self._remove(path)
        return True

    def probe(self) -> Finding | None:
        """Say whether the folder can still be written."""
        if os.access(self._folder, os.W_OK):
            return None
        return Finding("warn", "The folder of the cache cannot be written: nothing is cached.")

    def after_fork(self) -> None:
        """Renew the lock."""
        self._lock = threading.Lock()

    def _path(self, key: str) -> Path:
        return self._folder / hashlib.sha256(key.encode()).hexdigest()

    def _read(self, path: Path) -> bytes | None:
        try:
            data = path.read_bytes()
        except OSError:
            return None
        (expires,) = _EXPIRES.unpack_from(data) if len(data) >= _EXPIRES.size else (1.0,)
        if expires and expires <= time.time():
            self._remove(path)
            return None
        return data[_EXPIRES.size :]

    def _write(self, key: str, data: bytes, ttl: float, place: Callable[[str, Path], None] = os.replace) -> bool:
        """Write beside and put in place, so that a reader sees all of an entry or nothing."""
        self._make_room()
        part = ""
        try:
            handle, part = tempfile.mkstemp(_PART, dir=self._folder)
            with os.fdopen(handle, "wb") as file:
                file.write(_EXPIRES.pack(time.time() + ttl if ttl else 0.0) + data)
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

    def _remove(self, path: Path) -> bool:
        try:
            path.unlink()
        except OSError:
            return False
        return True

    def _files(self) -> Iterator[Path]:
        with suppress(OSError):
            yield from self._folder.iterdir()

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
