"""Logs: one line per request from its record, and the application's own lines with the same context."""

from .bridge import structlog_context
from .component import Logs
from .face import ServiceLog
from .settings import LogSettings

__all__ = ["LogSettings", "Logs", "ServiceLog", "structlog_context"]
