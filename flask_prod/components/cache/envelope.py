"""What an entry holds: a value as JSON, or a page. Never a pickle; entry.py has what goes around it."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
from markupsafe import Markup

PLAIN = b"j"
"""A value that JSON returns as it was."""

TAGGED = b"t"
"""A value with parts that JSON does not know; each is `{"$": type, "v": JSON}`."""

PAGE = b"p"
"""A response: its head as JSON, a line break, its body as it is."""

_TAG = "$"
_PLAIN_TYPES = frozenset({type(None), bool, str})
_DEEPEST = 200


@dataclass(frozen=True, slots=True)
class Page:
    """A stored response."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def encode_value(value: object) -> tuple[bytes, bytes]:
    """Return kind and payload of *value*; TypeError names a type that would not come back as it was."""
    try:
        if _is_plain(value):
            return PLAIN, msgspec.json.encode(value)
        return TAGGED, msgspec.json.encode(_tag(value, 0))
    except RecursionError:
        raise TypeError("A value that contains itself cannot be cached.") from None


def decode_value(kind: bytes, payload: bytes) -> Any:
    """Return the value; ValueError when the payload is none."""
    value = msgspec.json.decode(payload)
    return _untag(value) if kind == TAGGED else value


def encode_page(page: Page) -> bytes:
    """Return the payload of *page*."""
    return msgspec.json.encode((page.status, page.headers)) + b"\n" + page.body


_HEAD_DECODER = msgspec.json.Decoder(tuple[int, tuple[tuple[str, str], ...]])


def decode_page(payload: bytes) -> Page:
    """Return the page; ValueError when the payload is none."""
    head, _, body = payload.partition(b"\n")
    return Page(*_HEAD_DECODER.decode(head), body)


def _is_plain(value: Any) -> bool:
    kind = type(value)
    if kind in _PLAIN_TYPES:
        return True
    if kind is int:
        return bool(-(2**63) <= value < 2**64)
    if kind is float:
        return math.isfinite(value)
    if kind is list:
        return all(_is_plain(item) for item in value)
    if kind is dict:
        return _TAG not in value and all(type(key) is str and _is_plain(item) for key, item in value.items())
    return False


def _tag(value: Any, depth: int) -> Any:
    """Return *value* with a tag on every part that JSON does not know."""
    kind = type(value)
    if depth > _DEEPEST:
        raise TypeError("A value nested deeper than 200 levels cannot be cached.")
    if kind is list:
        return [_tag(item, depth + 1) for item in value]
    if kind is dict:
        return _tag_dict(value, depth)
    if _is_plain(value):
        return value
    if kind in _CONTAINERS:
        return {_TAG: kind.__name__, "v": [_tag(item, depth + 1) for item in value]}
    if kind not in _WRITERS:
        raise TypeError(
            f"{kind.__module__}.{kind.__qualname__} cannot be cached, since entries are JSON: return text, "
            "numbers, lists, dicts, dates or the like."
        )
    return {_TAG: kind.__name__, "v": _WRITERS[kind](value)}


def _tag_dict(value: dict[Any, Any], depth: int) -> Any:
    if _TAG not in value and all(type(key) is str for key in value):
        return {key: _tag(item, depth + 1) for key, item in value.items()}
    return {_TAG: "dict", "v": [[_tag(key, depth + 1), _tag(item, depth + 1)] for key, item in value.items()]}


def _untag(value: Any) -> Any:
    if type(value) is list:
        return [_untag(item) for item in value]
    if type(value) is not dict:
        return value
    if _TAG not in value:
        return {key: _untag(item) for key, item in value.items()}
    read = _READERS.get(value[_TAG])
    if read is None:
        raise ValueError("an entry of a later version")
    return read(value["v"])


_CONTAINERS = frozenset({tuple, set, frozenset})
_WRITERS: dict[type, Callable[[Any], str]] = {
    bytes: lambda value: base64.b64encode(value).decode(),
    datetime: datetime.isoformat,
    date: date.isoformat,
    time: time.isoformat,
    timedelta: lambda value: f"{value.days} {value.seconds} {value.microseconds}",
    Decimal: str,
    UUID: str,
    Markup: lambda value: str.__str__(value),
    int: str,
    float: repr,
}
_READERS: dict[str, Callable[[Any], Any]] = {
    "tuple": lambda items: tuple(map(_untag, items)),
    "set": lambda items: set(map(_untag, items)),
    "frozenset": lambda items: frozenset(map(_untag, items)),
    "dict": lambda pairs: {_untag(key): _untag(item) for key, item in pairs},
    "bytes": base64.b64decode,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timedelta": lambda text: timedelta(*map(int, text.split())),
    "Decimal": Decimal,
    "UUID": UUID,
    "Markup": Markup,  # only this module writes the tag: text that was safe stays safe
    "int": int,
    "float": float,
}
