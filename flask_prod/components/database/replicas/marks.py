"""How code says that a replica will do: a mark on what runs now, set by a decorator or a `with` block."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, Token
from functools import wraps
from inspect import iscoroutinefunction
from types import TracebackType
from typing import Any, Self, TypeVar, cast

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

marked: ContextVar[bool] = ContextVar("flask_prod_replica", default=False)
"""True while reads may go to a replica."""


class Reading:
    """Marks a block, or what a function does while it runs; blocks may lie within one another."""

    def __init__(self, replica: bool = True) -> None:
        self._replica = replica
        self._tokens: list[Token[bool]] = []

    def __enter__(self) -> Self:
        self._tokens.append(marked.set(self._replica))
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        marked.reset(self._tokens.pop())

    def __call__(self, function: FunctionT) -> FunctionT:
        """Return *function*, marked while it runs."""
        replica = self._replica
        if iscoroutinefunction(function):

            async def call_later(*args: Any, **options: Any) -> Any:
                with Reading(replica):
                    return await function(*args, **options)

            return cast(FunctionT, wraps(function)(call_later))

        @wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            with Reading(replica):
                return function(*args, **options)

        return cast(FunctionT, call)
