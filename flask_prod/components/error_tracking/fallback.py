"""A function that may fail: what it answers then, and who hears of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from copy import deepcopy
from functools import wraps
from typing import Any, TypeVar, cast

from werkzeug.exceptions import HTTPException

from .face import here

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
_COPIED = (list, dict, set, bytearray)


def fallback(
    value: Any, on: type[BaseException] | tuple[type[BaseException], ...] = Exception, *, name: str = ""
) -> Callable[[FunctionT], FunctionT]:
    """Let a function answer *value*, or what it returns for the same arguments, when it fails by one of *on*.

    Each failure is counted in `flask_prod_fallbacks_total` under *name*, the function's own by default, and
    reported once. An HTTPException, such as that of `abort(404)`, passes unless *on* names a class of those.
    TypeError for a generator function: it fails when it is read, after it has answered.
    """
    kinds = on if isinstance(on, tuple) else (on,)

    def decorate(function: FunctionT) -> FunctionT:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"fallback cannot guard the generator {function.__qualname__}: guard what it calls.")
        guard = _guard_async if inspect.iscoroutinefunction(function) else _guard
        return cast(FunctionT, guard(function, value, _Failures(kinds, name or function.__qualname__)))

    return decorate


class _Failures:
    """Which failures a fallback answers for, and under which name it tells of them."""

    def __init__(self, kinds: tuple[type[BaseException], ...], name: str) -> None:
        self.kinds = kinds
        self._name = name
        self._answers = tuple(kind for kind in kinds if issubclass(kind, HTTPException))

    def take(self, error: BaseException) -> None:
        """Count and report *error*; raise it again if it is an answer of HTTP that was not asked for."""
        if isinstance(error, HTTPException) and not isinstance(error, self._answers):
            raise error
        errors = here()
        if errors is not None:
            errors.fell_back(error, self._name)


def _guard(function: Callable[..., Any], value: Any, failures: _Failures) -> Callable[..., Any]:
    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except failures.kinds as error:
            failures.take(error)
        return _answer(value, args, kwargs)

    return guarded


def _guard_async(function: Callable[..., Any], value: Any, failures: _Failures) -> Callable[..., Any]:
    @wraps(function)
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return await function(*args, **kwargs)
        except failures.kinds as error:
            failures.take(error)
        found = _answer(value, args, kwargs)
        return await found if inspect.isawaitable(found) else found

    return guarded


def _answer(value: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return a fresh answer each time: one caller must not see what another did to it."""
    if callable(value):
        return value(*args, **kwargs)
    return deepcopy(value) if isinstance(value, _COPIED) else value
