"""The text of a file as its author wrote it, and lines added to it; line ends, encoding and comments stay."""

from __future__ import annotations

import io
import tokenize
from pathlib import Path


class ByHand(Exception):
    """Something that only its author can change well; the message names file and line, and what to write."""


class Text:
    """One file that may be added to; lines are counted from 1, as Python does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.before = path.read_bytes() if path.exists() else None
        self.encoding = _encoding(path, self.before or b"")
        try:
            text = (self.before or b"").decode(self.encoding)
        except UnicodeDecodeError as error:
            raise ByHand(f"{path} is not {self.encoding}: {error.reason} at byte {error.start}.") from error
        self.lines = io.StringIO(text, newline="").readlines()
        self.newline = next(
            (end for end in ("\r\n", "\n", "\r") if self.lines and self.lines[0].endswith(end)), "\n"
        )
        self._added: dict[int, list[str]] = {}

    @property
    def text(self) -> str:
        """The text as it is in the file."""
        return "".join(self.lines)

    def line(self, number: int) -> str:
        """Return one line without its end; empty beyond the last."""
        return self.lines[number - 1].rstrip("\r\n") if 0 < number <= len(self.lines) else ""

    def add_after(self, number: int, *new: str) -> None:
        """Add lines after line *number* (0 for the top); those added first come first."""
        self._added.setdefault(number, []).extend(new)

    def replace(self, number: int, new: str) -> None:
        """Put another text in the place of one line, which keeps its end."""
        end = self.lines[number - 1][len(self.line(number)) :]
        self.lines[number - 1] = new + end

    def result(self) -> bytes:
        """Return the file with all that was added."""
        out: list[str] = []
        for number in range(len(self.lines) + 1):
            if number:
                out.append(self.lines[number - 1])
            new = self._added.get(number)
            if new:
                if out and not out[-1].endswith(("\n", "\r")):
                    out.append(self.newline)
                out += [line + self.newline for line in new]
        return "".join(out).encode(self.encoding)


def _encoding(path: Path, raw: bytes) -> str:
    if path.suffix != ".py":
        return "utf-8-sig" if raw.startswith(b"\xef\xbb\xbf") else "utf-8"
    try:
        return tokenize.detect_encoding(io.BytesIO(raw).readline)[0]
    except SyntaxError as error:
        raise ByHand(f"{path}: {error}.") from error
