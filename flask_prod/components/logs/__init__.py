"""Logs: one line per request from its record, and the application's own lines with the same context."""

from .component import Logs
from .face import ServiceLog
from .security import SECURITY_EVENTS
from .settings import LogSettings
from .structured import configure_structlog, structlog_context, structlog_to_logs

__all__ = [
    "SECURITY_EVENTS",
    "LogSettings",
    "Logs",
    "ServiceLog",
    "configure_structlog",
    "structlog_context",
    "structlog_to_logs",
]
