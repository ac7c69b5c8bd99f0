"""What a request collects for the report it may come to need: breadcrumbs, tags, contexts, the user.

It is kept with the request, bounded, and costs nothing where nobody writes into it. The library need not be
imported for it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from flask_prod.core.record import RequestRecord, current_record
from flask_prod.core.redaction import shorten

_NOTES = "flask_prod.error_notes"
_MOST_CRUMBS = 50
_LONGEST_CRUMB = 1000
_LEVELS = {logging.INFO: "info", logging.WARNING: "warning", logging.ERROR: "error", logging.CRITICAL: "fatal"}


class Notes:
    """The notes of one request; of breadcrumbs the last fifty."""

    __slots__ = ("contexts", "crumbs", "extra", "secrets", "tags", "user")

    def __init__(self) -> None:
        self.crumbs: deque[dict[str, Any]] = deque(maxlen=_MOST_CRUMBS)
        self.tags: dict[str, Any] = {}
        self.contexts: dict[str, Any] = {}
        self.extra: dict[str, Any] = {}
        self.user: dict[str, Any] = {}
        self.secrets: set[str] = set()

    def add_crumb(self, crumb: Mapping[str, Any]) -> None:
        """Keep one, with the time if it has none."""
        self.crumbs.append({"type": "default", "level": "info", "timestamp": datetime.now(UTC), **crumb})

    @property
    def tell(self) -> bool:
        """True when there is more than breadcrumbs: something that a transaction shows too."""
        return bool(self.tags or self.contexts or self.extra or self.user)


def notes_of(record: RequestRecord) -> Notes:
    """Return the notes of a request, made on first use."""
    notes: Notes | None = record.environ.get(_NOTES)
    if notes is None:
        notes = record.environ[_NOTES] = Notes()
    return notes


def notes_taken(record: RequestRecord) -> Notes | None:
    """Return the notes of a request if there are any."""
    return record.environ.get(_NOTES)


class CrumbHandler(logging.Handler):
    """Makes a breadcrumb of each line that the application logs from INFO on while it serves a request."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.users = 0

    def emit(self, line: logging.LogRecord) -> None:
        """Keep *line* with the request that is served just now, if any."""
        record = current_record()
        if record is None or (line.exc_info and line.exc_info[1] is record.error is not None):
            return  # the crash itself, as Flask logs it, is what the report is about
        try:
            message = shorten(line.getMessage(), _LONGEST_CRUMB)
        except Exception:
            message = str(line.msg)[:_LONGEST_CRUMB]  # its arguments do not fit; the log's own handler says so
        level = _LEVELS.get(line.levelno, line.levelname.lower())
        when = datetime.fromtimestamp(line.created, UTC)
        crumb = {"type": "log", "level": level, "category": line.name, "message": message, "timestamp": when}
        notes_of(record).crumbs.append(crumb)


def join_crumbs() -> CrumbHandler:
    """Return the handler of this process, which all its applications share, and put it in place."""
    root = logging.getLogger()
    handler = next((h for h in root.handlers if isinstance(h, CrumbHandler)), None) or CrumbHandler()
    handler.users += 1
    root.addHandler(handler)
    return handler


def leave_crumbs(handler: CrumbHandler) -> None:
    """Take the handler away with the last application that uses it."""
    handler.users -= 1
    if handler.users <= 0:
        logging.getLogger().removeHandler(handler)
