"""One answer on its way out: its start, its body, its end."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import msgspec

from .component import HeaderList
from .record import RECORD_KEY, RequestRecord, leave
from .redaction import shown_path

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

    from .pipeline import Pipeline

logger = logging.getLogger(__name__)

ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None] | None

LOGGED = "__flask_prod_logged__"
"""Set on an exception whose stack the log has, with the request's id: servers log it once more, without."""

_MOST_SHAPES = 1024
"""A cache is emptied when it is full; an application has few kinds of answer."""


class Exchange(msgspec.Struct, eq=False):
    """One answer on its way out: sees its start, counts its bytes, and closes its record.

    One is made per request, which a msgspec structure does in half the time of a class.
    """

    pipeline: Pipeline
    record: RequestRecord
    start_response: StartResponse
    body: Iterable[bytes] = ()
    headers: HeaderList | None = None
    done: bool = False

    @property
    def started(self) -> bool:
        """True once the application has begun to answer."""
        return self.headers is not None

    @property
    def is_whole(self) -> bool:
        """True unless the answer is a stream of unknown length."""
        return any(name.lower() == "content-length" for name, _ in self.headers or ())

    def read(self) -> list[bytes]:
        """Read the body and end the record at once, so that a test sees what its request left behind."""
        try:
            return list(self)
        finally:
            self.close()

    def begin(self, status: str, headers: HeaderList, exc_info: ExcInfo = None) -> Callable[[bytes], object]:
        """Add the kit's headers and start the answer."""
        self.headers = headers
        pipeline, record = self.pipeline, self.record
        values = dict(headers)
        record.status, record.answered, content_type = pipeline.shapes[(status, *values)]
        record.content_type = values.get(content_type, "")
        headers.append(("X-Request-ID", record.request_id))
        for add in pipeline.headers:
            try:
                add(record, headers)
            except Exception:
                logger.exception("headers of %s failed", add)
        if exc_info is None:
            return self.start_response(status, headers)
        return self.start_response(status, headers, exc_info)

    def begin_again(
        self, status: str, headers: HeaderList, _exc_info: ExcInfo = None
    ) -> Callable[[bytes], object]:
        """Replace an answer of which nothing has been sent yet, by the exception that is being handled."""
        return self.begin(status, headers, sys.exc_info())

    def __iter__(self) -> Iterator[bytes]:
        record = self.record
        try:
            for chunk in self.body:
                record.bytes_sent += len(chunk)
                yield chunk
            self.done = True
        except GeneratorExit:
            raise
        except BaseException as error:
            self.crash(error)
            raise

    def crash(self, error: BaseException) -> None:
        """Note that *error* ended the request with no answer, or in the middle of one, and log its stack."""
        record = self.record
        record.outcome, record.error = "crashed", error
        self.done = True
        with suppress(AttributeError, TypeError):  # one that takes no names is logged by the server as well
            setattr(error, LOGGED, True)
        path = shown_path(record.path, record.route)
        logger.error("%s %s was broken off by %s", record.method, path, type(error).__name__, exc_info=error)

    def close(self) -> None:
        """Close the body and end the record; servers call it whether or not the body was read to its end."""
        record = self.record
        if record.environ.pop(RECORD_KEY, None) is None:
            return
        try:
            close = getattr(self.body, "close", None)
            if close is not None:
                close()
        except BaseException as error:
            self.crash(error)
            raise
        finally:
            if not self.done and record.outcome == "ok" and self.body:
                record.outcome = "aborted"
            if record.error is not None and record.status < 500 and record.outcome != "crashed":
                record.error = None
            self.end()

    def end(self) -> None:
        """Tell the observers of the request, which is over."""
        record = self.record
        record.duration = perf_counter() - record.started
        for observe in self.pipeline.observers:
            try:
                observe(record)
            except Exception:
                logger.exception("observer %s failed", observe)
        leave(record)


class Shape(NamedTuple):
    """What most answers share: the status, the names of headers in lower case, how Content-Type is spelt."""

    status: int
    names: frozenset[str]
    content_type: str


class Shapes(dict[tuple[str, ...], Shape]):
    """The shape of an answer by its status line and the names of its headers."""

    def __missing__(self, said: tuple[str, ...]) -> Shape:
        """Look at an answer that is new."""
        if len(self) >= _MOST_SHAPES:
            self.clear()
        status, *names = said
        lower = [name.lower() for name in names]
        content_type = names[lower.index("content-type")] if "content-type" in lower else ""
        shape = self[said] = Shape(int(status[:3]), frozenset(lower), content_type)
        return shape
