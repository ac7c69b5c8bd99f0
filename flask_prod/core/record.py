"""The typed story of one request, written by the pass and read by every observer."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

RECORD_KEY = "flask_prod.record"
"""Where the record lies in the WSGI environment."""

current: ContextVar[RequestRecord | None] = ContextVar("flask_prod_record", default=None)
"""The record of the request that this thread or task is serving; the pass sets it, everybody else asks
`current_record`."""


_NOTHING: frozenset[str] = frozenset()


class RequestRecord:
    """One request from its first byte to its last; times are `time.perf_counter` seconds.

    `outcome` is "ok", "aborted" (the client left before the end) or "crashed" (an exception ended it).
    `route` is the rule that matched, None when none did. `error` is the exception behind a 5xx answer.
    `answered` are the names, in lower case, of the headers that the application itself answered with, and
    `content_type` is one of them; both are there when rooms add their headers.
    `singular` says that what rooms add to the headers of this answer holds for no other request.
    `alike` is shared by requests of one route and method that are given the same answer: a room keeps there, under
    its name, what holds for all of them.
    `refusal` is what a guard answered before Flask was entered; the pass gives it where error handlers are.
    `trace_id` and `span_id` are the lower-case hex of W3C trace context, empty without traces; `sampled` says that
    the request's spans are kept, and `span` is the tracing room's own.
    `db_queries` and `db_seconds` say how often and how long the request asked a database; `db_statements` is the
    database room's own.
    """

    # Slots, all of them set: an attribute of the class behind one of the instance makes each reading of it slow.
    __slots__ = (
        "__weakref__",
        "alike",
        "answered",
        "bytes_sent",
        "client",
        "content_type",
        "db_queries",
        "db_seconds",
        "db_statements",
        "duration",
        "endpoint",
        "environ",
        "error",
        "extra",
        "host",
        "limits",
        "method",
        "nonce",
        "operational",
        "outcome",
        "outer",
        "path",
        "refusal",
        "request_id",
        "route",
        "sampled",
        "scheme",
        "singular",
        "span",
        "span_id",
        "started",
        "status",
        "trace_id",
        "user_id",
    )

    def __init__(self, environ: WSGIEnvironment, request_id: str, started: float) -> None:
        self.environ = environ
        self.request_id = request_id
        self.started = started
        self.method: str = environ["REQUEST_METHOD"]
        self.path: str = environ.get("PATH_INFO") or "/"
        self.scheme: str = environ["wsgi.url_scheme"]
        self.host: str = environ.get("HTTP_HOST") or environ["SERVER_NAME"]
        self.client: str = environ.get("REMOTE_ADDR") or ""
        self.endpoint: str | None = None
        self.route: str | None = None
        self.operational: bool = False
        self.status: int = 0
        self.bytes_sent: int = 0
        self.duration: float = 0.0
        self.outcome: str = "ok"
        self.error: BaseException | None = None
        self.answered: frozenset[str] = _NOTHING
        self.content_type: str = ""
        self.singular: bool = False
        self.alike: dict[str, Any] | None = None
        self.user_id: str | None = None
        self.trace_id: str = ""
        self.span_id: str = ""
        self.sampled: bool = False
        self.span: Any = None
        self.nonce: str | None = None
        self.limits: Any = None
        self.extra: dict[str, Any] | None = None
        self.outer: RequestRecord | None = None
        self.refusal: Any = None
        self.db_queries: int = 0
        self.db_seconds: float = 0.0
        self.db_statements: Any = None

    def note(self, **values: Any) -> None:
        """Keep *values* with the request: they appear in its log line and error report."""
        if self.extra is None:
            self.extra = {}
        self.extra.update(values)


def current_record() -> RequestRecord | None:
    """Return the record of the request that this thread or task is serving, None outside of one."""
    return current.get()


def enter(record: RequestRecord) -> None:
    """Make *record* the current one, remembering the one it is nested in (a test client inside a view)."""
    outer = current.get()
    if outer is not None:
        record.outer = outer
    current.set(record)


def leave(record: RequestRecord) -> None:
    """End *record*; a body closed late or in another context must not disturb the request served now."""
    if current.get() is record:
        current.set(record.outer)
