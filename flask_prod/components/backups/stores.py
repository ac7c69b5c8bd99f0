"""Where backups lie: a directory here; the bucket is in s3.py."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from .manifest import BackupError
from .settings import BackupSettings

ABANDONED = 24 * 3600.0
"""Seconds after which what was never finished is thrown away."""


class Writer(Protocol):
    """Takes bytes."""

    def write(self, data: bytes, /) -> object:
        """Take some."""


class Store(Protocol):
    """Keeps files by name; one is there when it is whole, and not before."""

    def create(self, name: str) -> AbstractContextManager[Writer]:
        """Give a writer; the file appears when the block ends well."""

    def open(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Give a reader; BackupError when there is no such file."""

    def names(self) -> list[str]:
        """Return the names of all files."""

    def delete(self, name: str) -> None:
        """Remove a file; one that is gone already is fine."""

    def sweep(self) -> None:
        """Throw away what killed backups have left."""


def store_of(settings: BackupSettings) -> Store:
    """Return the store that BACKUP_URL names; BackupError when it names none."""
    if not settings.url:
        raise BackupError("There is no place for backups: set BACKUP_URL to a directory or s3://bucket/prefix.")
    if settings.url.startswith("s3://"):
        from .s3 import S3Store

        return S3Store(settings)
    return DirectoryStore(Path(settings.url.removeprefix("file://")))


class DirectoryStore:
    """A directory that only its owner can read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def create(self, name: str) -> Iterator[Writer]:
        """Write to a hidden file, and rename it when it is whole and on the disk."""
        draft = self._folder / f".{name}.{secrets.token_hex(4)}.part"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, self._folder / name)
            self._sync()
        except OSError as error:
            raise BackupError(f"{self._folder} cannot be written: {error.strerror}. See BACKUP_URL.") from error
        finally:
            draft.unlink(missing_ok=True)

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Read a file."""
        try:
            with open(self._folder / name, "rb") as file:
                yield file
        except OSError as error:
            raise BackupError(f"{self._folder / name} cannot be read: {error.strerror}.") from error

    def names(self) -> list[str]:
        """Return the names of all files that are whole."""
        try:
            return [name for name in os.listdir(self._folder) if not name.startswith(".")]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise BackupError(f"{self._folder} cannot be read: {error.strerror}. See BACKUP_URL.") from error

    def delete(self, name: str) -> None:
        """Remove a file."""
        with suppress(FileNotFoundError):
            (self._folder / name).unlink()

    def sweep(self) -> None:
        """Remove drafts of a day ago."""
        for draft in self._folder.glob(".*.part"):
            with suppress(OSError):
                if time.time() - draft.stat().st_mtime > ABANDONED:
                    draft.unlink()

    def _sync(self) -> None:
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def reader(body: object) -> BinaryIO:
    """Return *body* as what it is enough of: something with `read`."""
    return cast(BinaryIO, body)
