"""The one pass: the order of every request, in one place.

At WSGI level:  proxy -> request id -> operational endpoints -> allowed hosts -> CORS preflight -> public pages
In Flask:       http to https -> rate limit -> cache -> the application's own hooks and view
On the way out: headers when the answer starts, whoever gave it; observers when its body is closed

Only steps may answer. Headers and observers that raise are logged and skipped.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from flask import Flask, request
from flask.signals import got_request_exception
from werkzeug.exceptions import HTTPException, InternalServerError
from werkzeug.wrappers import Response

from .client import READ_AT_ONCE, EagerClients
from .component import Ask, Contribution, Pairs, Stage, Step
from .early import Ready, Whole, early_of
from .exchange import Exchange, Shapes
from .record import RECORD_KEY, RequestRecord, current
from .redaction import shown_path

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger(__name__)


_IDS_AT_ONCE = 128

_CHOOSY = (Stage.PREFLIGHT, Stage.HTTPS)
"""Stages that concern only some requests: those by OPTIONS, and those by plain HTTP."""


class Pipeline:
    """Runs the contributions of one application around its requests.

    What every request comes through is written for few calls: `serve`, and in exchange.py `begin` and `close`.
    """

    def __init__(
        self, app: Flask, contributions: Mapping[str, Contribution[Any]], start: Callable[[], None]
    ) -> None:
        self._app = app
        steps = [step for contribution in contributions.values() for step in contribution.steps]
        self._arriving = _asks(steps, Stage.PROXY, Stage.IDENTITY)
        self._entering = _asks(steps, Stage.HOST, Stage.PREFLIGHT)
        self._routed = _asks(steps, Stage.HTTPS, Stage.CACHE)
        self._early = early_of(contributions, steps)
        self.headers = _hooks(contributions, "headers")
        steady = {c.headers for c in contributions.values() if c.steady}
        self.steady = tuple(hook for hook in self.headers if hook in steady)
        self.varying = tuple(hook for hook in self.headers if hook not in steady)
        self.observers = _hooks(contributions, "observe")
        self._render = next((c.render for c in contributions.values() if c.render), render_plainly)
        self._paths, self._subtrees = _split(contributions)
        self._own = (*self._paths, *self._subtrees, *(step.path for step in steps if step.path))
        self.shapes = Shapes()
        self._begin_process = start
        self.renew()
        self.after_fork()

    def renew(self) -> None:
        """Have what was kept of answers made anew: settings have changed."""
        self.edition = object()

    def after_fork(self) -> None:
        """Begin anew: a forked child has started nothing yet and must not repeat its parent's request ids."""
        self._start: Callable[[], None] | None = self._begin_process
        self._ids: list[str] = []

    def attach(self) -> None:
        """Put the pass around the application and its routed part in front of the application's own hooks."""
        app = self._app
        self._wsgi: WSGIApplication = app.wsgi_app
        self._handle_user_exception = app.handle_user_exception
        self._make_response = app.make_response
        self._preprocess_request = app.preprocess_request
        # Instance attributes, as Flask's own documentation does with wsgi_app. An exception is seen here before
        # any handler of the user turns it into an answer; the signal sees those that come from elsewhere.
        app.wsgi_app = self.serve  # type: ignore[method-assign]
        app.handle_user_exception = self._note_exception  # type: ignore[method-assign, assignment]
        app.make_response = self._draw  # type: ignore[method-assign, assignment]
        app.test_client_class = EagerClients(app.test_client_class)  # type: ignore[assignment]  # Flask only calls it
        got_request_exception.connect(self._note_signal, app)
        app.preprocess_request = self._preprocess  # type: ignore[method-assign]

    def serve(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request: the whole pass."""
        if self._start is not None:
            start, self._start = self._start, None
            start()
        try:
            request_id = self._ids.pop()
        except IndexError:
            request_id = self._draw_ids()
        record = environ[RECORD_KEY] = RequestRecord(environ, request_id, perf_counter())
        outer = current.get()
        if outer is not None:
            record.outer = outer
        current.set(record)
        exchange: Exchange | None = None
        try:
            answer = self._ask_entering(record)
            if isinstance(answer, tuple):
                exchange = whole = Whole(self, record, start_response)
                whole.give(*answer)
            else:
                exchange = Exchange(self, record, start_response)
                exchange.body = (self._wsgi if answer is None else answer)(environ, exchange.begin)
        except Exception as error:
            exchange = exchange or Exchange(self, record, start_response)
            exchange.body = self._crash(exchange, error)
        except BaseException as error:  # the worker is told to end, a greenlet's time is up
            exchange = exchange or Exchange(self, record, start_response)
            exchange.crash(error)
            exchange.close()
            raise
        return exchange.read() if READ_AT_ONCE in environ and exchange.is_whole else exchange

    def _draw_ids(self) -> str:
        """Fill the list of request ids and return one: 32 random hex digits, good for trace ids too.

        Many at once, because urandom is a system call; a list, because its pop is safe for threads.
        """
        digits = os.urandom(16 * _IDS_AT_ONCE).hex()
        ids = [digits[start : start + 32] for start in range(0, len(digits), 32)]
        request_id = ids.pop()
        self._ids = ids
        return request_id

    def is_operational(self, path: str) -> bool:
        """Tell whether *path* is a probe or a scrape."""
        return path in self._paths or any(path.startswith(subtree) for subtree in self._subtrees)

    def _ask_entering(self, record: RequestRecord) -> WSGIApplication | tuple[Ready, Pairs] | None:
        """Ask the steps before Flask; paths of the kit's own make a request operational."""
        own = record.path.startswith(self._own)
        for ask in self._arriving.all if own else self._arriving.most:
            answer = ask(record)
            if answer is not None:
                return self._as_response(record, answer)
        if own and self.is_operational(record.path):
            record.operational = True
            return None
        for ask in self._entering.all if record.method == "OPTIONS" else self._entering.most:
            answer = ask(record)
            if answer is not None:
                return self._as_response(record, answer)
        return None if self._early is None else self._early.ask(record)

    def _preprocess(self) -> Any:
        """Ask the routed steps first, for every path, matched or not; then the application's own hooks."""
        current_request = request._get_current_object()  # type: ignore[attr-defined]  # once; the proxy costs
        record: RequestRecord | None = current_request.environ.get(RECORD_KEY)
        if record is not None:
            rule = current_request.url_rule
            if rule is not None:
                record.endpoint = rule.endpoint
                record.route = rule.rule
            answer = None if record.operational else self._ask_routed(record)
            if answer is not None:
                return answer
        return self._preprocess_request()

    def _ask_routed(self, record: RequestRecord) -> Response | None:
        if record.refusal is not None:
            return _given(record.refusal)
        for ask in self._routed.most if record.scheme == "https" else self._routed.all:
            answer = ask(record)
            if answer is not None:
                return _given(answer)
        return None

    def _as_response(self, record: RequestRecord, answer: Response | HTTPException) -> WSGIApplication:
        return self._render(record, answer) if isinstance(answer, HTTPException) else answer

    def _draw(self, value: Any) -> Response:
        """Make a response as Flask does, and draw an error that no handler of the user answered."""
        if isinstance(value, HTTPException) and value.response is None and (value.code or 500) >= 400:
            record = request.environ.get(RECORD_KEY)
            if record is not None:
                value = self._render(record, value)
        response: Response = self._make_response(value)
        return response

    def _note_exception(self, error: Exception) -> Any:
        _note(request.environ.get(RECORD_KEY), error)
        return self._handle_user_exception(error)

    def _note_signal(self, _app: Flask, exception: BaseException, **_: Any) -> None:
        _note(request.environ.get(RECORD_KEY), exception)

    def _crash(self, exchange: Exchange, error: Exception) -> Iterable[bytes]:
        """Answer what escaped Flask (PROPAGATE_EXCEPTIONS, a raising teardown), unless a test wants to see it."""
        record = exchange.record
        _note(record, error)
        try:
            if self._app.testing or self._app.debug:
                record.outcome = "crashed"
                record.status = record.status or 500
                raise error
            path = shown_path(record.path, record.route)
            logger.error("%s %s crashed", record.method, path, exc_info=error)
            response = self._render(record, InternalServerError(original_exception=error))
            return response(record.environ, exchange.begin_again if exchange.started else exchange.begin)
        except BaseException:
            exchange.close()
            raise


def render_plainly(record: RequestRecord, error: HTTPException) -> Response:
    """Draw an error as werkzeug does; what answers where the error pages are left out."""
    return error.get_response(record.environ)


class _Asks(NamedTuple):
    """The steps of some stages: all of them, and those that most requests are asked about."""

    all: tuple[Ask, ...]
    most: tuple[Ask, ...]


def _asks(steps: Iterable[Step], first: Stage, last: Stage) -> _Asks:
    found = sorted((step for step in steps if first <= step.stage <= last), key=lambda step: step.stage)
    return _Asks(tuple(map(_ask, found)), tuple(_ask(step) for step in found if not _concerns_few(step)))


def _concerns_few(step: Step) -> bool:
    return step.stage in _CHOOSY or (bool(step.path) and step.stage <= Stage.IDENTITY)


def _ask(step: Step) -> Ask:
    return _only_at(step.path, step.ask) if step.path else step.ask


def _only_at(path: str, ask: Ask) -> Ask:
    return lambda record: ask(record) if record.path.startswith(path) else None


def _given(answer: Response | HTTPException) -> Response:
    """Return an answer; an exception is raised where the user's error handlers see it."""
    if isinstance(answer, HTTPException):
        raise answer
    return answer


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
