"""Finding the lines of one request in a log: bytes first, which is fast, and only what was found is understood."""

from __future__ import annotations

import gzip
import mmap
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Protocol

import msgspec

MOST = 10_000
"""Lines that are kept; a request that logs more is read with other tools."""

_CHUNK = 8 * 1024**2
_LONGEST = 4 * 1024**2
"""A longer line is no line of ours; its end is looked for no further."""

_ROTATED = re.compile(r"[.-]\d[\d._-]*(\.gz)?", re.ASCII)


class Readable(Protocol):
    """What lines are read from."""

    def read(self, size: int, /) -> bytes:
        """Return so many bytes at most, none at the end."""


class NotALog(Exception):
    """A file cannot be understood: it says why."""


@dataclass(frozen=True, slots=True)
class Found:
    """One line: when, what it says, and its bytes as they stood in the log."""

    moment: datetime
    content: dict[str, Any]
    raw: bytes


class Search:
    """Gathers what is said of one id; *oldest* is the earliest moment that counts, in seconds since 1970."""

    def __init__(self, wanted: str, oldest: float = 0.0) -> None:
        self.wanted = wanted
        self.oldest = oldest
        self.lines: list[Found] = []
        self.older = 0
        self.others = 0
        self.cut = False
        self._needle = wanted.encode()
        self._seen: set[bytes] = set()

    def in_order(self) -> list[Found]:
        """Return the lines in order of time."""
        return sorted(self.lines, key=lambda line: line.moment)

    def read_file(self, path: Path) -> None:
        """Search a file, compressed or not; OSError, NotALog when it cannot be read."""
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if packed:
                self._read_packed(file, path)
            elif path.is_file() and path.stat().st_size:
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                    self._scan(content)
            else:
                self.read(file)

    def read(self, stream: Readable) -> None:
        """Search a stream to its end."""
        rest = b""
        while chunk := stream.read(_CHUNK):
            whole, newline, rest_of_chunk = chunk.rpartition(b"\n")
            if not newline:
                rest = (rest + chunk)[-_LONGEST:]
                continue
            self._scan(rest + whole)
            rest = rest_of_chunk
        self._scan(rest)

    def _read_packed(self, file: IO[bytes], path: Path) -> None:
        try:
            with gzip.open(file) as unpacked:
                self.read(unpacked)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise NotALog(f"{path}: {error}") from error

    def _scan(self, content: bytes | mmap.mmap) -> None:
        """Look at each line with the id in it, once."""
        position = content.find(self._needle)
        while position >= 0 and not self.cut:
            start = content.rfind(b"\n", max(0, position - _LONGEST), position) + 1
            start = start or max(0, position - _LONGEST)
            end = content.find(b"\n", position, position + _LONGEST)
            end = min(len(content), position + _LONGEST) if end < 0 else end
            self._look(content[start:end])
            position = content.find(self._needle, end)

    def _look(self, line: bytes) -> None:
        content = _understood(line)
        if content is None:
            self.others += 1
        elif _is_about(content, self.wanted):
            moment = _moment(content.get("timestamp"))
            if moment.timestamp() < self.oldest:
                self.older += 1
            elif line not in self._seen:  # a file rotated by copying, or given twice
                self._seen.add(line)
                self.lines.append(Found(moment, content, line[line.find(b"{") :].rstrip()))
                self.cut = len(self.lines) >= MOST


def siblings(path: Path, oldest: float) -> Iterator[Path]:
    """Yield the log file and what logrotate made of it (`.1`, `.2.gz`, `-20261121.gz`), written since *oldest*."""
    if not path.parent.is_dir():
        return
    for file in sorted(path.parent.iterdir()):
        rotated = file.name.startswith(path.name) and _ROTATED.fullmatch(file.name[len(path.name) :])
        if (file == path or rotated) and file.is_file() and file.stat().st_mtime >= oldest:
            yield file


def _understood(line: bytes) -> dict[str, Any] | None:
    """Return a line as an object, also behind what `docker compose logs` or `kubectl logs` put before it."""
    start = line.find(b"{")
    if start < 0:
        return None
    try:
        content = msgspec.json.decode(line[start:])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return content if isinstance(content, dict) else None


def _is_about(content: dict[str, Any], wanted: str) -> bool:
    fields = content.get("fields")
    named = fields if isinstance(fields, dict) else {}
    known = (content.get("request_id"), content.get("trace_id"), content.get("job_id"))
    return wanted in (*known, named.get("request_id"), named.get("trace_id"), named.get("job_id"))


def _moment(text: object) -> datetime:
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return datetime.fromtimestamp(0, UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
