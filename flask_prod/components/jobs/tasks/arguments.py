"""Arguments of a job: matched with its signature when it is dispatched, made what it asks for when it runs."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import cached_property
from typing import Any, Union
from uuid import UUID

from ..dispatch.payload import Unencodable, prepare

_PLAIN: Mapping[type, tuple[type, ...]] = {
    int: (int,),
    float: (int, float),
    str: (str,),
    bool: (bool,),
    bytes: (bytes,),
    datetime: (datetime,),
    date: (date,),
    time: (time,),
    timedelta: (timedelta,),
    Decimal: (Decimal, int),
    UUID: (UUID,),
    list: (list, tuple),
    dict: (dict,),
    types.NoneType: (types.NoneType,),
}
"""Annotations that can be held against a value at once, with what fits them; any other annotation is not."""

_UNIONS = (Union, types.UnionType)


class Shape:
    """What arguments one function takes."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name = name
        self.signature = inspect.signature(function)
        self._function = function

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
        """Return arguments by name; TypeError when they do not fit the function, by number, name or plain type."""
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}") from None
        expected = self._expected
        if expected:
            for name, value in bound.arguments.items():
                fits = expected.get(name)
                if fits is not None and not isinstance(value, fits):
                    raise TypeError(
                        f"{self.name}: argument {name!r} must be {self._spelt(name)}, not {type(value).__name__}"
                    )
        return bound

    def stored(self, value: Any) -> Any:
        """Return an argument as it is stored: an enum that the function says it takes as its value."""
        return value.value if isinstance(value, Enum) and type(value) in self._enum_types else value

    def revive(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Return stored arguments as the function is to get them: values of enums are these again."""
        if not self._enums:
            return args, kwargs
        names = (*self._positional, *("",) * len(args))
        made = [self._made(name, value) for name, value in zip(names, args, strict=False)]
        return made, {name: self._made(name, value) for name, value in kwargs.items()}

    def blame(self, bound: inspect.BoundArguments, error: Unencodable) -> str:
        """Say which argument cannot be stored."""
        for name, value in bound.arguments.items():
            try:
                prepare(value)
            except Unencodable as cause:
                return f"{self.name}: argument {name!r}: {cause}."
            except RecursionError:
                break
        return f"{self.name}: {error}."

    @property
    def has_enums(self) -> bool:
        """Tell whether an argument may be an enum."""
        return bool(self._enums)

    def _made(self, name: str, value: Any) -> Any:
        kind = self._enums.get(name)
        return value if kind is None or value is None or isinstance(value, kind) else kind(value)

    def _spelt(self, name: str) -> str:
        annotation = self._hints[name]
        return annotation.__name__ if isinstance(annotation, type) else str(annotation)

    @cached_property
    def _hints(self) -> dict[str, Any]:
        """Read annotations when the first job is dispatched: names may be defined below the function."""
        try:
            hints = typing.get_type_hints(self._function)
        except Exception:
            return {}  # names for the type checker alone
        variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        kinds = {name: parameter.kind for name, parameter in self.signature.parameters.items()}
        return {name: hint for name, hint in hints.items() if kinds.get(name, variadic[0]) not in variadic}

    @cached_property
    def _positional(self) -> tuple[str, ...]:
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        return tuple(name for name, parameter in self.signature.parameters.items() if parameter.kind in kinds)

    @cached_property
    def _expected(self) -> dict[str, tuple[type, ...]]:
        found = {name: _fitting(hint) for name, hint in self._hints.items()}
        for name, parameter in self.signature.parameters.items():
            if parameter.default is None and found.get(name):
                found[name] = (*(found[name] or ()), types.NoneType)
        return {name: fits for name, fits in found.items() if fits is not None}

    @cached_property
    def _enums(self) -> dict[str, type[Enum]]:
        found = {name: _enum_of(hint) for name, hint in self._hints.items()}
        return {name: kind for name, kind in found.items() if kind is not None}

    @cached_property
    def _enum_types(self) -> frozenset[type]:
        return frozenset(self._enums.values())


def _fitting(hint: Any) -> tuple[type, ...] | None:
    """Return the types of which a value must be one, None when the annotation says more than that."""
    if typing.get_origin(hint) in _UNIONS:
        parts = [_fitting(part) for part in typing.get_args(hint)]
        return None if None in parts else tuple(kind for part in parts for kind in part or ())
    if isinstance(hint, type) and issubclass(hint, Enum):
        return (hint,)
    try:
        return _PLAIN.get(typing.get_origin(hint) or hint)
    except TypeError:
        return None  # an annotation that cannot be hashed


def _enum_of(hint: Any) -> type[Enum] | None:
    """Return the enum that an annotation names, alone or beside None."""
    for part in typing.get_args(hint) if typing.get_origin(hint) in _UNIONS else (hint,):
        if isinstance(part, type) and issubclass(part, Enum):
            return part
    return None
