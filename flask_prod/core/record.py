"""The typed story of one request, written by the pass and read by every observer."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

RECORD_KEY = "flask_prod.record"
"""Where the record lies in the WSGI environment."""

_current: ContextVar[RequestRecord | None] = ContextVar("flask_prod_record", default=None)


class RequestRecord:
    """One request from its first byte to its last; times are `time.perf_counter` seconds.

    `outcome` is "ok", "aborted" (the client left before the end) or "crashed" (an exception ended it).
    `route` is the rule that matched, None when none did. `error` is the exception behind a 5xx answer.
    """

    __slots__ = (
        "bytes_sent", "client", "duration", "endpoint", "environ", "error", "extra", "host", "limits",
        "method", "nonce", "operational", "outcome", "outer", "path", "request_id", "route", "sampled",
        "scheme", "span_id", "started", "status", "trace_id", "user_id",
    )  # fmt: skip

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
        self.operational = False
        self.status = 0
        self.bytes_sent = 0
        self.duration = 0.0
        self.outcome = "ok"
        self.error: BaseException | None = None
        self.user_id: str | None = None
        self.trace_id = ""
        self.span_id = ""
        self.sampled = False
        self.nonce: str | None = None
        self.limits: Any = None
        self.extra: dict[str, Any] | None = None
        self.outer: RequestRecord | None = None

    def note(self, **values: Any) -> None:
        """Keep *values* with the request: they appear in its log line and error report."""
        if self.extra is None:
            self.extra = {}
        self.extra.update(values)


def current_record() -> RequestRecord | None:
    """Return the record of the request that this thread or task is serving, None outside of one."""
    return _current.get()


def enter(record: RequestRecord) -> None:
    """Make *record* the current one, remembering the one it is nested in (a test client inside a view)."""
    record.outer = _current.get()
    _current.set(record)


def leave(record: RequestRecord) -> None:
    """End *record*; a body closed late or in another context must not disturb the request served now."""
    if _current.get() is record:
        _current.set(record.outer)
    record.outer = None
