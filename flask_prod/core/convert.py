"""From what a user typed to the type a section declares, and back to words when it does not fit."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union, cast, get_args, get_origin

import msgspec
from msgspec import Meta

from .values import DURATION, SIZE, Secret, parse_duration, parse_size

_WORDS = {"yes": True, "on": True, "no": False, "off": False}


def convert(raw: object, kind: Any) -> Any:
    """Return *raw* as *kind*; ValueError when it does not fit."""
    kind, optional = _without_none(kind)
    if optional and (raw is None or raw == ""):
        return None
    if isinstance(kind, type) and issubclass(kind, Secret):
        return raw if isinstance(raw, kind) else kind(raw.reveal() if isinstance(raw, Secret) else str(raw))
    if get_origin(kind) is tuple and isinstance(get_args(kind)[0], type) and issubclass(get_args(kind)[0], Secret):
        return tuple(convert(item, get_args(kind)[0]) for item in cast("tuple[object, ...]", _to_tuple(raw)))

    for matches, prepare in _PREPARE:
        if matches(kind):
            raw = prepare(raw)
            break
    try:
        return msgspec.convert(raw, kind, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error


def expected(kind: Any) -> str:
    """Say in words what a value of *kind* looks like: `a whole number from 1 to 65535`."""
    kind, optional = _without_none(kind)
    base, meta = _unwrap(kind)
    words = _noun(base, meta) + _bounds(meta)
    return f"{words}, or empty for none" if optional else words


def holds_secrets(kind: Any) -> bool:
    """Tell whether a value of *kind* is a secret, or has secrets in it."""
    if isinstance(kind, type):
        return issubclass(kind, Secret)
    return any(holds_secrets(part) for part in get_args(kind))


def _without_none(kind: Any) -> tuple[Any, bool]:
    if get_origin(kind) in (Union, types.UnionType) and type(None) in get_args(kind):
        rest = [arg for arg in get_args(kind) if arg is not type(None)]
        return (rest[0] if len(rest) == 1 else Union[tuple(rest)], True)  # noqa: UP007  # built at run time
    return kind, False


def _unwrap(kind: Any) -> tuple[Any, Meta | None]:
    if get_origin(kind) is typing.Annotated:
        base, *marks = get_args(kind)
        return base, next((mark for mark in marks if isinstance(mark, Meta)), None)
    return kind, None


def _special(kind: Any) -> str | None:
    meta = _unwrap(kind)[1]
    return (meta.extra or {}).get("kind") if meta else None


def _to_bool(raw: object) -> object:
    return _WORDS.get(raw.lower(), raw.lower()) if isinstance(raw, str) else raw


def _to_tuple(raw: object) -> object:
    if isinstance(raw, str):
        return tuple(item.strip() for item in raw.split(",") if item.strip())
    if isinstance(raw, list | tuple | set | frozenset):
        return tuple(raw)
    raise ValueError("not a list")


def _to_mapping(raw: object) -> object:
    if not isinstance(raw, str):
        return raw
    if raw.lstrip().startswith("{"):
        return msgspec.json.decode(raw)
    pairs = (pair.split("=", 1) for pair in raw.split(";") if pair.strip())
    try:
        return {key.strip(): value.strip() for key, value in pairs}
    except ValueError as error:
        raise ValueError("not name=value pairs") from error


def _to_str(raw: object) -> object:
    return str(raw) if isinstance(raw, int | float) and not isinstance(raw, bool) else raw


_PREPARE: tuple[tuple[Callable[[Any], bool], Callable[[object], object]], ...] = (
    (lambda kind: _special(kind) == DURATION, parse_duration),
    (lambda kind: _special(kind) == SIZE, parse_size),
    (lambda kind: kind is bool, _to_bool),
    (lambda kind: kind is str, _to_str),
    (lambda kind: get_origin(kind) is tuple, _to_tuple),
    (lambda kind: get_origin(kind) in (dict, Mapping), _to_mapping),
)


def _noun(base: Any, meta: Meta | None) -> str:
    special = (meta.extra or {}).get("kind") if meta else None
    if special == DURATION:
        return "a duration such as 30s, 5m or 1h"
    if special == SIZE:
        return "a size such as 512MB"
    if get_origin(base) is Literal:
        return "one of " + ", ".join(str(choice) for choice in get_args(base))
    if get_origin(base) is tuple:
        return "a list (comma-separated in the environment)"
    if get_origin(base) in (dict, Mapping):
        return "a mapping (name=value; name=value in the environment)"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "text"}.get(base, "text")


def _bounds(meta: Meta | None) -> str:
    if meta is None:
        return ""
    if meta.ge is not None and meta.le is not None:
        return f" from {meta.ge} to {meta.le}"
    if meta.ge is not None:
        return ", zero or more" if meta.ge == 0 else f" of at least {meta.ge}"
    return f" of at most {meta.le}" if meta.le is not None else ""
