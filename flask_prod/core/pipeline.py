"""The one pass: the order of every request, in one place.

At WSGI level:  proxy -> request id -> operational endpoints -> allowed hosts -> CORS preflight
In Flask:       http to https -> rate limit -> cache -> the application's own hooks and view
On the way out: headers when the answer starts, whoever gave it; observers when its body is closed

Only steps may answer. Headers and observers that raise are logged and skipped.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from random import Random
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from flask import Flask, request
from flask.signals import got_request_exception
from werkzeug.exceptions import HTTPException, InternalServerError
from werkzeug.wrappers import Response

from .client import READ_AT_ONCE, eager
from .component import Contribution, HeaderList, Stage, Step
from .record import RECORD_KEY, RequestRecord, enter, leave

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from werkzeug.routing import Rule

logger = logging.getLogger(__name__)

ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None] | None
Ask: TypeAlias = Callable[[RequestRecord], Response | HTTPException | None]


class Pipeline:
    """Runs the contributions of one application around its requests."""

    def __init__(
        self, app: Flask, contributions: Mapping[str, Contribution[Any]], start: Callable[[], None]
    ) -> None:
        self._app = app
        steps = sorted(
            (step for contribution in contributions.values() for step in contribution.steps),
            key=lambda step: step.stage,
        )
        self._arriving = _asks(steps, Stage.PROXY, Stage.IDENTITY)
        self._entering = _asks(steps, Stage.HOST, Stage.PREFLIGHT)
        self._routed = _asks(steps, Stage.HTTPS, Stage.CACHE)
        self._headers = _hooks(contributions, "headers")
        self._observers = _hooks(contributions, "observe")
        self._render = next((c.render for c in contributions.values() if c.render), render_plainly)
        self._paths, self._subtrees = _split(contributions)
        self._begin_process = start
        self.after_fork()

    def after_fork(self) -> None:
        """Begin anew: a forked child has started nothing yet and must not repeat its parent's request ids."""
        self._start: Callable[[], None] | None = self._begin_process
        self._new_id = _request_ids()

    def attach(self) -> None:
        """Put the pass around the application and its routed part in front of the application's own hooks."""
        app = self._app
        self._wsgi: WSGIApplication = app.wsgi_app
        self._handle_user_exception = app.handle_user_exception
        self._make_response = app.make_response
        self._preprocess_request = app.preprocess_request
        # Instance attributes, as Flask's own documentation does with wsgi_app. An exception is seen here before
        # any handler of the user turns it into an answer; the signal sees those that come from elsewhere.
        app.wsgi_app = self  # type: ignore[method-assign]
        app.handle_user_exception = self._note_exception  # type: ignore[method-assign, assignment]
        app.make_response = self._draw  # type: ignore[method-assign, assignment]
        app.test_client_class = eager(app.test_client_class)
        got_request_exception.connect(self._note_signal, app)
        app.preprocess_request = self._preprocess  # type: ignore[method-assign]

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request: the whole pass."""
        if self._start is not None:
            start, self._start = self._start, None
            start()
        record = RequestRecord(environ, self._new_id(), perf_counter())
        environ[RECORD_KEY] = record
        enter(record)
        exchange = Exchange(self, record, start_response)
        try:
            self._serve(exchange)
        except BaseException:
            exchange.close()
            raise
        return exchange.read() if READ_AT_ONCE in environ and exchange.is_whole else exchange

    def _serve(self, exchange: Exchange) -> None:
        record = exchange.record
        try:
            serve = self._ask_arriving(record) or self._wsgi
            exchange.body = serve(record.environ, exchange.begin)
        except Exception as error:
            exchange.body = self._crash(exchange, error)

    def is_operational(self, path: str) -> bool:
        """Tell whether *path* is a probe or a scrape."""
        return path in self._paths or any(path.startswith(subtree) for subtree in self._subtrees)

    def _ask_arriving(self, record: RequestRecord) -> WSGIApplication | None:
        for ask in self._arriving:
            answer = ask(record)
            if answer is not None:
                return self._as_response(record, answer)
        if record.path in self._paths or (self._subtrees and self.is_operational(record.path)):
            record.operational = True
            return None
        for ask in self._entering:
            answer = ask(record)
            if answer is not None:
                return self._as_response(record, answer)
        return None

    def _preprocess(self) -> Any:
        """Ask the routed steps first, for every path, matched or not; then the application's own hooks."""
        current = request._get_current_object()  # type: ignore[attr-defined]  # once; each use of the proxy costs
        record: RequestRecord | None = current.environ.get(RECORD_KEY)
        answer = self._ask_routed(record, current.url_rule) if record is not None else None
        return self._preprocess_request() if answer is None else answer

    def _ask_routed(self, record: RequestRecord, rule: Rule | None) -> Response | None:
        if rule is not None:
            record.endpoint = rule.endpoint
            record.route = rule.rule
        if record.operational:
            return None
        for ask in self._routed:
            answer = ask(record)
            if isinstance(answer, HTTPException):
                raise answer
            if answer is not None:
                return answer
        return None

    def _as_response(self, record: RequestRecord, answer: Response | HTTPException) -> WSGIApplication:
        return self._render(record, answer) if isinstance(answer, HTTPException) else answer

    def _draw(self, value: Any) -> Response:
        """Make a response as Flask does, and draw an error that no handler of the user answered."""
        if isinstance(value, HTTPException) and value.response is None and (value.code or 500) >= 400:
            record = request.environ.get(RECORD_KEY)
            if record is not None:
                value = self._render(record, value)
        return cast(Response, self._make_response(value))

    def _note_exception(self, error: Exception) -> Any:
        _note(request.environ.get(RECORD_KEY), error)
        return self._handle_user_exception(error)

    def _note_signal(self, _app: Flask, exception: BaseException, **_: Any) -> None:
        _note(request.environ.get(RECORD_KEY), exception)

    def _crash(self, exchange: Exchange, error: Exception) -> Iterable[bytes]:
        """Answer what escaped Flask (PROPAGATE_EXCEPTIONS, a raising teardown), unless a test wants to see it."""
        record = exchange.record
        _note(record, error)
        if self._app.testing or self._app.debug:
            record.outcome = "crashed"
            record.status = record.status or 500
            raise error
        logger.error("%s %s crashed", record.method, record.path, exc_info=error)
        response = self._render(record, InternalServerError(original_exception=error))
        return response(record.environ, exchange.begin_again if exchange.started else exchange.begin)

    def add_headers(self, record: RequestRecord, headers: HeaderList) -> None:
        """Let every room add its headers."""
        for add in self._headers:
            try:
                add(record, headers)
            except Exception:
                logger.exception("headers of %s failed", add)

    def observe(self, record: RequestRecord) -> None:
        """Tell every observer that the request has ended."""
        for observe in self._observers:
            try:
                observe(record)
            except Exception:
                logger.exception("observer %s failed", observe)


class Exchange:
    """One answer on its way out: sees its start, counts its bytes, and closes its record."""

    __slots__ = ("_done", "_pipeline", "_start_response", "body", "headers", "record", "started")

    def __init__(self, pipeline: Pipeline, record: RequestRecord, start_response: StartResponse) -> None:
        self._pipeline = pipeline
        self._start_response = start_response
        self._done = False
        self.record = record
        self.started = False
        self.body: Iterable[bytes] = ()
        self.headers: HeaderList = []

    @property
    def is_whole(self) -> bool:
        """True unless the answer is a stream of unknown length."""
        return any(name.lower() == "content-length" for name, _ in self.headers)

    def read(self) -> list[bytes]:
        """Read the body and end the record at once, so that a test sees what its request left behind."""
        try:
            return list(self)
        finally:
            self.close()

    def begin(self, status: str, headers: HeaderList, exc_info: ExcInfo = None) -> Callable[[bytes], object]:
        """Add the kit's headers and start the answer."""
        self.started = True
        self.headers = headers
        self.record.status = int(status[:3])
        headers.append(("X-Request-ID", self.record.request_id))
        self._pipeline.add_headers(self.record, headers)
        if exc_info is None:
            return self._start_response(status, headers)
        return self._start_response(status, headers, exc_info)

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
            self._done = True
        except GeneratorExit:
            raise
        except BaseException as error:
            record.outcome = "crashed"
            record.error = error
            self._done = True
            raise

    def close(self) -> None:
        """Close the body and end the record; servers call it whether or not the body was read to its end."""
        record = self.record
        if record.environ.pop(RECORD_KEY, None) is None:
            return
        try:
            close = getattr(self.body, "close", None)
            if close is not None:
                close()
        finally:
            if not self._done and record.outcome == "ok" and self.body:
                record.outcome = "aborted"
            if record.status < 500 and record.outcome != "crashed":
                record.error = None
            record.duration = perf_counter() - record.started
            self._pipeline.observe(record)
            leave(record)


def render_plainly(record: RequestRecord, error: HTTPException) -> Response:
    """Draw an error as werkzeug does; what answers where the error pages are left out."""
    return error.get_response(record.environ)


def _asks(steps: Collection[Step], first: Stage, last: Stage) -> tuple[Ask, ...]:
    return tuple(step.ask for step in steps if first <= step.stage <= last)


def _hooks(contributions: Mapping[str, Contribution[Any]], what: str) -> tuple[Callable[..., None], ...]:
    found = (getattr(contribution, what) for contribution in contributions.values())
    return tuple(hook for hook in found if hook is not None)


def _split(contributions: Mapping[str, Contribution[Any]]) -> tuple[frozenset[str], tuple[str, ...]]:
    paths = [path for contribution in contributions.values() for path in contribution.operational]
    return frozenset(p for p in paths if not p.endswith("/")), tuple(p for p in paths if p.endswith("/"))


def _note(record: RequestRecord | None, error: BaseException) -> None:
    """Remember what is behind a 5xx answer; the first exception is the cause."""
    # Other exceptions have a `code` too: SQLAlchemy's is a word, SystemExit's anything.
    expected = isinstance(error, HTTPException) and (error.code or 500) < 500
    if record is not None and record.error is None and not expected:
        record.error = error


def _request_ids() -> Callable[[], str]:
    """Return a source of 32 random hex digits, good for trace ids too; urandom is a system call."""
    draw = Random(os.urandom(32)).getrandbits  # noqa: S311  # ids are no secrets
    return lambda: f"{draw(128):032x}"
