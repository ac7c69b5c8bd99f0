"""The arguments of a call: under which key its result lies, and which tags it has."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable
from string import Formatter
from typing import Any, TypeAlias

Tags: TypeAlias = Iterable[str] | Callable[..., Iterable[str]]

_LONGEST_NAME = 200
"""Characters of a tag or a key; what a visitor puts into an address must not make names of megabytes."""

_PLAIN = frozenset({str, int, bool, float, type(None)})
"""Types whose `repr` tells all values apart and is the same in every process."""

_SIMPLE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Arguments:
    """How the calls of one function are told apart."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._signature = inspect.signature(function)
        parameters = tuple(self._signature.parameters.values())
        self.rest = next((one.name for one in parameters if one.kind is one.VAR_KEYWORD), None)
        simple = all(one.kind in _SIMPLE for one in parameters)
        self._names = tuple(one.name for one in parameters) if simple else None
        self._defaults = {one.name: one.default for one in parameters if one.default is not one.empty}
        self._beginning = f"call:{function.__module__}.{function.__qualname__}:"

    def key(self, args: Any, kwargs: Any) -> str | None:
        """Return a key per set of plain arguments, however they are passed; None if they are not plain."""
        names = self._names
        if names is None or len(args) > len(names):
            return None
        if len(args) < len(names):
            given = {**self._defaults, **kwargs}
            try:
                args = (*args, *[given.pop(name) for name in names[len(args) :]])
            except KeyError:
                return None  # the function itself says what is wrong
            if not given.keys() <= self._defaults.keys() - kwargs.keys():
                return None
        elif kwargs:
            return None
        for value in args:
            if type(value) not in _PLAIN:
                return None
        return short(self._beginning + repr(args))

    def named(self, args: Any, kwargs: Any) -> dict[str, Any]:
        """Return all arguments by name; TypeError when they do not fit the function."""
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        values = bound.arguments
        return values if self.rest is None else {**values, **values[self.rest]}

    def tags(self, tags: Tags) -> Callable[[Any, Any], tuple[str, ...]]:
        """Return what makes the tags of a call: `product:{id}` takes the argument *id*.

        TypeError for an argument that the function does not have.
        """
        if callable(tags):
            return lambda args, kwargs: tuple(short(str(tag)) for tag in tags(*args, **kwargs))
        fixed = tuple(short(tag) for tag in tags)
        if not any("{" in tag for tag in fixed):
            return lambda _args, _kwargs: fixed
        for tag in fixed:
            self.must_fit(tag)

        def fill(args: Any, kwargs: Any) -> tuple[str, ...]:
            values = self.named(args, kwargs)
            return tuple(short(tag.format_map(values)) for tag in fixed)

        return fill

    def template(self, key: str) -> Callable[..., str]:
        """Return what makes the key of a call: `product/{id}` takes the argument *id*."""
        if "{" not in key:
            return lambda *_args, **_kwargs: key
        self.must_fit(key)
        return lambda *args, **kwargs: short(key.format_map(self.named(args, kwargs)))

    def must_fit(self, template: str) -> None:
        """Refuse a template that names an argument which the function does not have."""
        for _, field, _, _ in Formatter().parse(template):
            name = (field or "").partition(".")[0].partition("[")[0]
            if field is not None and self.rest is None and name not in self._signature.parameters:
                raise TypeError(
                    f"{template!r} names an argument that {self._function.__qualname__} does not have."
                )


def short(name: str) -> str:
    """Return *name*, or what stands for it where it is long."""
    return name if len(name) <= _LONGEST_NAME else hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()
