"""The protocol of Redis (RESP 2) as the request path needs it: commands to bytes, bytes to answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import redis

Word: TypeAlias = str | bytes | int | float
"""A part of a command: numbers are sent as they are written in decimal."""

END = b"\r\n"
_DEEPEST = 8
"""Lists within lists: no command of ours nests deeper, and damaged bytes must not exhaust the stack."""


def pack(*words: bytes) -> bytes:
    """Return a command as it goes over the wire."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def pack_words(words: Iterable[Word]) -> bytes:
    """Return a command of texts, bytes and numbers as it goes over the wire."""
    return pack(*[word if type(word) is bytes else _encode(word) for word in words])


def unpack(command: bytes) -> list[bytes]:
    """Return the words of a packed command."""
    reader = Reader(_nothing_more, command, _as_is)
    words: list[bytes] = reader.value()
    return words


class Reader:
    """Reads answers, each to its end; `receive` brings more bytes, `error` makes an exception of an error line."""

    def __init__(self, receive: Callable[[], bytes], data: bytes, error: Callable[[str], Exception]) -> None:
        self._receive = receive
        self._data = bytearray(data)
        self._at = 0
        self._error = error

    @property
    def done(self) -> bool:
        """True when nothing follows what was read."""
        return self._at == len(self._data)

    def value(self, depth: int = 0) -> Any:
        """Return one answer: bytes, a number, None, a list of these, or an exception for an error."""
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind == b"$":
            return self._text(int(rest))
        if kind == b":":
            return int(rest)
        if kind == b"+":
            return rest
        if kind == b"-":
            return self._error(rest.decode("utf-8", "replace"))
        if kind == b"*" and depth < _DEEPEST:
            size = int(rest)
            return None if size < 0 else [self.value(depth + 1) for _ in range(size)]
        raise redis.exceptions.InvalidResponse("Redis answered with something that is no answer.")

    def _line(self) -> bytes:
        while (end := self._data.find(END, self._at)) < 0:
            self._more()
        line = bytes(self._data[self._at : end])
        self._at = end + 2
        return line

    def _text(self, size: int) -> bytes | None:
        if size < 0:
            return None
        end = self._at + size
        while len(self._data) < end + 2:
            self._more()
        if self._data[end : end + 2] != END:
            raise redis.exceptions.InvalidResponse("Redis answered with a text of another length.")
        text = bytes(self._data[self._at : end])
        self._at = end + 2
        return text

    def _more(self) -> None:
        self._data += self._receive()


def _encode(word: Word) -> bytes:
    if isinstance(word, str):
        return word.encode()
    if isinstance(word, bytes):
        return word
    return repr(word).encode() if isinstance(word, float) else b"%d" % word


def _nothing_more() -> bytes:
    raise ValueError("a command that ends before its end")


def _as_is(line: str) -> Exception:
    return ValueError(line)
