"""structlog, where an application uses it: its events become lines of ours, with their fields."""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from typing import Any

from flask_prod.core.errors import MissingExtra
from flask_prod.core.record import current_record

_OF_LOGGING = ("exc_info", "stack_info", "stacklevel")


def structlog_context(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the current request's ids to a structlog event; a processor to put before a renderer of your own."""
    record = current_record()
    if record is not None:
        event.setdefault("request_id", record.request_id)
        for name in ("user_id", "trace_id", "span_id"):
            if getattr(record, name):
                event.setdefault(name, getattr(record, name))
    return event


def structlog_to_logs(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Hand a structlog event over to `logging`, its keywords as fields; a processor to put last.

    Needs `structlog.stdlib.LoggerFactory()` as the logger factory.
    """
    passed = {name: event.pop(name) for name in _OF_LOGGING if name in event}
    message = event.pop("event", "")
    # Passed as an argument: a percent sign in the message is one.
    return ("%s", message), {**passed, "extra": {"fields": dict(event)}}


def configure_structlog() -> None:
    """Let structlog write to this application's log, whatever it was told before."""
    try:
        import structlog
    except ImportError as error:
        raise MissingExtra("configure_structlog", "structlog", "structlog") from error

    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, structlog.contextvars.merge_contextvars, structlog_to_logs],
        wrapper_class=structlog.make_filtering_bound_logger(0),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def adopt_structlog() -> bool:
    """Configure structlog if the application has imported it and not configured it; tell whether that was done."""
    structlog = sys.modules.get("structlog")
    if structlog is None or not hasattr(structlog, "is_configured") or structlog.is_configured():
        return False
    configure_structlog()
    return True


def release_structlog() -> None:
    """Give structlog its own defaults back, unless somebody has configured it otherwise since."""
    structlog = sys.modules.get("structlog")
    if structlog is not None and structlog_to_logs in structlog.get_config()["processors"]:
        structlog.reset_defaults()
