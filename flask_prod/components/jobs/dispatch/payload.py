"""What a job carries: JSON that gives back what was put in, never pickle.

Types that JSON lacks are written as `{"$": kind, "v": text}`. Tuples come back as lists, as everywhere in JSON.
Reading builds plain values only, whatever the bytes say.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

_TAG = "$"
_INT64 = 2**63

_WRITE: Mapping[type, tuple[str, Callable[[Any], Any]]] = {
    datetime: ("datetime", datetime.isoformat),
    date: ("date", date.isoformat),
    time: ("time", time.isoformat),
    timedelta: ("timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    Decimal: ("decimal", str),
    UUID: ("uuid", str),
    bytes: ("bytes", lambda value: base64.b64encode(value).decode()),
}

_READ: Mapping[str, Callable[[Any], Any]] = {
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timedelta": lambda parts: timedelta(*parts),
    "decimal": Decimal,
    "uuid": lambda text: UUID(str(text)),
    "bytes": base64.b64decode,
    "float": float,
    "int": int,
    "dict": lambda pairs: dict(revive(pairs)),
}


class Unencodable(TypeError):
    """A value cannot be stored in a job; `kind` is the name of its type."""

    def __init__(self, value: object, hint: str = "") -> None:
        self.kind = type(value).__name__
        super().__init__(hint or f"{self.kind} cannot be stored in a job; pass an id or plain values instead")


class JsonSerializer:
    """RQ's serializer protocol; name it to RQ's own tools as flask_prod.components.jobs.JsonSerializer."""

    @staticmethod
    def dumps(value: Any) -> bytes:
        """Return *value* as JSON; Unencodable names the type that cannot be."""
        try:
            return msgspec.json.encode(prepare(value))
        except RecursionError:
            raise Unencodable(value, "a value that is nested too deeply cannot be stored in a job") from None
        except UnicodeEncodeError:
            raise Unencodable(value, "text with half a surrogate pair cannot be stored in a job") from None

    @staticmethod
    def loads(data: bytes) -> Any:
        """Return what *data* was made of; msgspec.DecodeError or ValueError for anything that is not ours."""
        return revive(msgspec.json.decode(data))


def prepare(value: Any) -> Any:
    """Return *value* in terms of JSON; Unencodable for what has no form there."""
    kind = type(value)
    if value is None or kind is str or kind is bool:
        return value
    if kind is int:
        return value if -_INT64 <= value < _INT64 else _tagged("int", str(value))
    if kind is float:
        return value if math.isfinite(value) else _tagged("float", repr(value))
    if kind is list or kind is tuple:
        return [prepare(item) for item in value]
    if kind is dict:
        return _prepare_dict(value)

    known = _WRITE.get(kind)
    if known is not None:
        return _tagged(known[0], known[1](value))
    return _prepare_plain(value)


def revive(value: Any) -> Any:
    """Return *value* with tagged values made again; ValueError for a tag nobody wrote."""
    if type(value) is list:
        return [revive(item) for item in value]
    if type(value) is not dict:
        return value
    if _TAG not in value:
        return {key: revive(item) for key, item in value.items()}

    read = _READ.get(value[_TAG]) if isinstance(value[_TAG], str) else None
    if read is None or value.keys() != {_TAG, "v"}:
        raise ValueError("a payload that flask-prod did not write")
    try:
        return read(value["v"])
    except (ArithmeticError, LookupError, TypeError) as error:
        raise ValueError("a payload that flask-prod did not write") from error


def _tagged(kind: str, text: Any) -> dict[str, Any]:
    return {_TAG: kind, "v": text}


def _prepare_dict(value: dict[Any, Any]) -> Any:
    if _TAG not in value and all(type(key) is str for key in value):
        return {key: prepare(item) for key, item in value.items()}
    for key in value:
        if isinstance(key, tuple):
            raise Unencodable(key, "a tuple as the key of a mapping cannot be stored in a job")
    # A key that is no text, or one that looks like our tag, is kept as a pair.
    return _tagged("dict", [[prepare(key), prepare(item)] for key, item in value.items()])


def _prepare_plain(value: Any) -> Any:
    """Take what behaves as text, number or mapping: enums of them, Markup, a request's arguments."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return prepare(int(value))
    if isinstance(value, float):
        return prepare(float(value))
    if isinstance(value, dict):
        return _prepare_dict(dict(value))
    raise Unencodable(value)
