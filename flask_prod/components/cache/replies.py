"""What goes to Redis and what comes back: entries, numbers that Redis counts on, answers of any shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .entry import Entry, pack
from .envelope import PLAIN


def stored(key: str, entry: Entry) -> bytes:
    """Return what is stored for a value that somebody sets: whole numbers so that Redis can count on."""
    if entry.kind == PLAIN and not entry.tags and entry.expires == entry.stale_until and is_number(entry.payload):
        return entry.payload
    return pack(key, entry)


def is_number(data: bytes) -> bool:
    """Tell whether these are the digits of a whole number as Redis writes it."""
    digits = data[1:] if data[:1] == b"-" else data
    return len(digits) < 19 and digits.isdigit() and (len(digits) == 1 or digits[:1] != b"0")


def holds(entry: Entry, known: Mapping[str, int]) -> bool:
    """Tell whether each tag has the stamp that it had; one without a stamp was invalidated."""
    return all(stamp and known.get(tag) == stamp for tag, stamp in entry.tags)


def stamp_of(stamp: object) -> int:
    """Return a stamp, 0 for none and for what can be none."""
    return int(stamp) if isinstance(stamp, bytes) and len(stamp) < 20 and stamp.isdigit() else 0


def of_length(reply: object, count: int) -> list[Any]:
    """Return the answer to a question about *count* keys; ValueError for one of another shape."""
    if not isinstance(reply, list) or len(reply) != count:
        raise ValueError("not an answer to this question")
    return reply


def literal(text: str) -> str:
    """Return *text* as a MATCH pattern for itself: service names may contain what patterns are made of."""
    return "".join("\\" + char if char in "*?[]\\^" else char for char in text)
