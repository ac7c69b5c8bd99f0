"""`prod.tracing` and `prod.span`: work before any application exists, and do nothing where nothing is traced."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, TypeVar, cast

from flask_prod.core.ports import NO_SPAN, SpanPort
from flask_prod.core.record import current_record

from .clean import attribute, plain
from .engine import Trace, is_open

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


class UserSpan:
    """A piece of work as a block or around a function; attributes under a secret's name are starred out."""

    def __init__(self, name: str, attributes: dict[str, Any]) -> None:
        self._name = plain(name, 200)
        self._attributes = attributes
        self._open: AbstractContextManager[SpanPort] = NO_SPAN

    def __enter__(self) -> SpanPort:
        self._open = NO_SPAN
        record = current_record()
        if record is not None and is_open(record):
            told = {key: attribute(key, value) for key, value in self._attributes.items() if value is not None}
            self._open = record.span.tracing.span(self._name, "internal", told)
            return _Careful(self._open.__enter__())
        return self._open.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, stack: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, stack)

    def __call__(self, function: FunctionT) -> FunctionT:
        """Measure each call of *function*, a coroutine function too."""
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def later(*args: Any, **kwargs: Any) -> Any:
                with UserSpan(self._name, self._attributes):
                    return await function(*args, **kwargs)

            return cast(FunctionT, later)

        @functools.wraps(function)
        def measured(*args: Any, **kwargs: Any) -> Any:
            with UserSpan(self._name, self._attributes):
                return function(*args, **kwargs)

        return cast(FunctionT, measured)


class _Careful:
    """A span as users have it: what they set is redacted by name and by looks."""

    def __init__(self, span: SpanPort) -> None:
        self._span = span

    def set(self, name: str, value: str | int | float | bool) -> None:
        """Set an attribute."""
        self._span.set(name, attribute(name, value))

    def fail(self, error: BaseException) -> None:
        """Say that the work failed."""
        self._span.fail(error)


class TracingFace:
    """The trace of the request or job that is being served; everything is empty outside of one."""

    @property
    def trace_id(self) -> str:
        """The trace's id, 32 hex digits."""
        record = current_record()
        return record.trace_id if record is not None else ""

    @property
    def span_id(self) -> str:
        """The id of the request's own span, 16 hex digits."""
        record = current_record()
        return record.span_id if record is not None else ""

    @property
    def sampled(self) -> bool:
        """True when the spans of this request are kept."""
        record = current_record()
        return is_open(record)

    def span(self, name: str, **attributes: Any) -> UserSpan:
        """Measure a block or a function: `with prod.tracing.span("charge card", order=7):`."""
        return UserSpan(name, attributes)

    def set(self, name: str, value: str | int | float | bool) -> None:
        """Set an attribute of the request's own span."""
        record = current_record()
        if record is not None and is_open(record):
            record.span.open.set(name, attribute(name, value))

    def carrier(self) -> dict[str, str]:
        """Return the headers by which another service goes on with this trace, for clients that are not hooked."""
        record = current_record()
        if record is None or record.span.__class__ is not Trace:
            return {}
        headers: dict[str, str] = record.span.tracing.carrier()
        return headers
