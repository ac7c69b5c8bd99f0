"""What the workers of one host tell one another: one asks the shared dependencies, all read what it found.

Files in the run directory, written whole and put in place by a rename. Whoever cannot read them asks for itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import msgspec

from flask_prod.core.component import Finding
from flask_prod.core.run_dir import Leader

from .tally import Result
from .telling import Change

_LARGEST = 1024 * 1024
"""Bytes of a file that are read; ours have some thousands."""

_MOST_REPORTED = 64 * 1024
"""Bytes of reported failures that may wait: a leader that does not read them shall not fill a disk."""

_LONGEST = 300


class Told(msgspec.Struct, frozen=True):
    """One result as the leader wrote it."""

    status: str
    detail: str
    data: dict[str, object]
    latency: float
    at: float
    checked: float
    since: float
    failures: int
    successes: int
    error: str

    def result(self) -> Result:
        """Return it as the engine keeps it."""
        finding = Finding(self.status, self.detail, self.data)
        return Result(
            finding, self.latency, self.at, self.checked, self.since, self.failures, self.successes, self.error
        )


class News(msgspec.Struct, frozen=True):
    """All that the leader tells: results by name, the last changes, and the state that was announced."""

    results: dict[str, Told]
    history: list[Change]
    state: str


class Failure(msgspec.Struct, frozen=True):
    """A failure that a request of another worker met."""

    check: str
    detail: str
    sure: bool = False


class Beat(msgspec.Struct, frozen=True):
    """A worker's sign of life: which process, and whether it calls itself stuck."""

    pid: int
    born: str
    stuck: bool = False


class Board:
    """The shared files of one service; *mark* tells apart services that ask different dependencies.

    Without a folder this process leads, and nobody reads what it tells.
    """

    def __init__(self, folder: Path | None, mark: Callable[[], str]) -> None:
        self._folder = folder
        self._mark = mark
        self._read: tuple[int, int] | None = None
        self._offset: int | None = None
        self._beat: Beat | None = None
        self._led = False

    @cached_property
    def _name(self) -> str:
        return f"health-{self._mark()}"  # known once all rooms are installed

    @cached_property
    def _leader(self) -> Leader:
        return Leader(self._folder, self._name)

    def leads(self) -> bool:
        """Tell whether this process asks for all; takes a place that has become free."""
        self._led = self._leader.leads()
        return self._led

    def leave(self) -> None:
        """Leave the place with what was written there, and take the sign of life away."""
        if self._led:
            self._remove("json")
            self._remove("seen")
        self._led = False
        if "_leader" in self.__dict__:  # else nobody has asked: an application that could not start has no name
            self._leader.resign()
        if self._beat is not None:
            self._remove(f"{os.getpid()}.beat")
        self._beat = None

    def after_fork(self) -> None:
        """Begin anew in a child, which must hold no place of its parent's."""
        if "_leader" in self.__dict__:
            self._leader.resign()
        self._read = self._offset = self._beat = None
        self._led = False

    def publish(self, results: Mapping[str, Result], history: Iterable[Change], state: str) -> None:
        """Tell all workers."""
        self._write("json", News({name: _told(one) for name, one in results.items()}, list(history), state))

    def news(self) -> News | None:
        """Return what the leader has told since the last call, None if nothing."""
        path = self._path("json")
        if path is None:
            return None
        try:
            found = path.stat()
            if (found.st_mtime_ns, found.st_ino) == self._read:
                return None
            self._read = (found.st_mtime_ns, found.st_ino)
            return msgspec.json.decode(_content(path), type=News)
        except (OSError, msgspec.DecodeError):
            return None

    def report(self, failure: Failure) -> bool:
        """Tell the leader of a failure; tell whether that was possible."""
        path = self._path("seen")
        if path is None:
            return False
        line = msgspec.json.encode(msgspec.structs.replace(failure, detail=failure.detail[:_LONGEST])) + b"\n"
        try:
            seen = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:
            return False
        with open(seen, "ab", buffering=0) as file, suppress(OSError):
            if os.fstat(seen).st_size < _MOST_REPORTED:
                file.write(line)
        return True

    def reported(self) -> Iterator[Failure]:
        """Yield the failures that were reported since the last call; those from before the first are old news."""
        for line in self._reported_lines():
            with suppress(msgspec.DecodeError):
                yield msgspec.json.decode(line, type=Failure)

    def beat(self, stuck: bool) -> None:
        """Give a sign of life."""
        path = self._path(f"{os.getpid()}.beat")
        if path is None:
            return
        beat = Beat(os.getpid(), born(os.getpid()), stuck)
        if beat == self._beat:
            try:
                os.utime(path)
            except OSError:
                self._beat = None
            else:
                return
        self._beat = beat
        self._write(f"{os.getpid()}.beat", beat)

    def others(self) -> Iterator[tuple[Beat, float]]:
        """Yield the signs of other living workers, with their age in seconds; clear away those of the dead."""
        if self._folder is None:
            return
        for path in self._folder.glob(f"{self._name}.*.beat"):
            try:
                age = time.time() - path.lstat().st_mtime
                beat = msgspec.json.decode(_content(path), type=Beat)
            except (OSError, msgspec.DecodeError):
                continue
            if beat.pid == os.getpid():
                continue
            if born(beat.pid) == beat.born:
                yield beat, age
            else:
                with suppress(OSError):
                    path.unlink()

    def _reported_lines(self) -> list[bytes]:
        path = self._path("seen")
        if path is None:
            return []
        try:
            seen = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            self._offset = 0
            return []
        try:
            size = os.fstat(seen).st_size
            before, self._offset = self._offset, size
            if before is None or size <= before:
                return []
            content = os.pread(seen, min(size - before, _MOST_REPORTED), before)
            if size >= _MOST_REPORTED // 2:
                os.ftruncate(seen, 0)
                self._offset = 0
            return content.splitlines()
        finally:
            os.close(seen)

    def _write(self, name: str, what: object) -> None:
        path = self._path(name)
        if path is None:
            return
        new = path.with_name(f"{path.name}.{os.getpid()}.new")
        with suppress(OSError):
            with open(os.open(new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
                file.write(msgspec.json.encode(what, enc_hook=str))
            new.replace(path)

    def _remove(self, name: str) -> None:
        path = self._path(name)
        if path is not None:
            with suppress(OSError):
                path.unlink()

    def _path(self, name: str) -> Path | None:
        return None if self._folder is None else self._folder / f"{self._name}.{name}"


def born(pid: int) -> str:
    """Return when a process began, in the kernel's own count; empty when there is none of this number."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _told(result: Result) -> Told:
    finding = result.finding
    return Told(
        finding.status, finding.detail, dict(finding.data), result.latency, result.at, result.checked,
        result.since, result.failures, result.successes, result.error,
    )  # fmt: skip


def _content(path: Path) -> bytes:
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
        return file.read(_LARGEST)
