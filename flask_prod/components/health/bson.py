"""As much of BSON as one `hello` needs: a command of plain fields out, the top level of an answer in."""

from __future__ import annotations

import struct
from collections.abc import Mapping

_SKIPPED = {0x07: 12, 0x09: 8, 0x11: 8, 0x13: 16}
"""Types of a fixed size that nobody asks for: object id, date, timestamp, decimal."""


def encode(document: Mapping[str, int | str]) -> bytes:
    """Return a document of numbers and texts."""
    body = b"".join(_element(name.encode() + b"\0", value) for name, value in document.items())
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def decode(data: bytes) -> dict[str, object]:
    """Return the numbers, texts and truths of a document's top level; ValueError when it is none."""
    found: dict[str, object] = {}
    at, end = 4, _size(data, 0) - 1
    if not 4 <= end < len(data):
        raise ValueError("a document that is cut off")
    while at < end:
        kind = data[at]
        stop = data.index(b"\0", at + 1)
        name, at = data[at + 1 : stop].decode(), stop + 1
        value, at = _value(kind, data, at)
        found[name] = value
    return found


def _element(name: bytes, value: int | str) -> bytes:
    if isinstance(value, int):
        return b"\x10" + name + struct.pack("<i", value)
    text = value.encode() + b"\0"
    return b"\x02" + name + struct.pack("<i", len(text)) + text


def _value(kind: int, data: bytes, at: int) -> tuple[object, int]:
    if kind == 0x01:
        return struct.unpack_from("<d", data, at)[0], at + 8
    if kind == 0x10:
        return struct.unpack_from("<i", data, at)[0], at + 4
    if kind == 0x12:
        return struct.unpack_from("<q", data, at)[0], at + 8
    if kind == 0x08:
        return data[at] == 1, at + 1
    if kind == 0x02:
        size = _size(data, at)
        return data[at + 4 : at + 3 + size].decode(), at + 4 + size
    return None, at + _skipped(kind, data, at)


def _skipped(kind: int, data: bytes, at: int) -> int:
    """Return how many bytes a value takes that nobody asks for."""
    if kind == 0x0A:
        return 0
    if kind in (0x03, 0x04):
        return _size(data, at)
    if kind == 0x05:
        return _size(data, at) + 5
    if kind in _SKIPPED:
        return _SKIPPED[kind]
    raise ValueError(f"type {kind}")


def _size(data: bytes, at: int) -> int:
    (size,) = struct.unpack_from("<i", data, at)
    if not 0 <= size <= len(data):
        raise ValueError("a size that cannot be")
    return int(size)
