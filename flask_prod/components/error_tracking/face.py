"""`prod.sentry`: what code calls when it knows something worth reporting."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Mapping
from typing import Any

from flask import current_app

from flask_prod.core.kit import EXTENSION
from flask_prod.core.record import current_record

from .engine import AppErrors
from .notes import notes_of, notes_taken

logger = logging.getLogger("flask_prod.errors")


class ErrorsFace:
    """Reports to the current application's Sentry; without one, or without an application, it only logs.

    Everything else of the `sentry_sdk` module can be called on it too: `prod.sentry.set_tag("order", 7)`.
    """

    def capture_error(self, error: BaseException | None = None, **context: object) -> str | None:
        """Report *error*, or the one being handled, with *context*; return the event's id if it was sent."""
        errors = here()
        if errors is not None:
            return errors.capture_error(error, **context)
        logger.error("%s", error or sys.exc_info()[1], exc_info=error or True, extra={"fields": context})
        return None

    def capture_message(self, message: str, level: str = "info", **context: object) -> str | None:
        """Report *message* with *context*; return the event's id if it was sent."""
        errors = here()
        if errors is not None:
            return errors.capture_message(message, level, **context)
        logger.log(getattr(logging, level.upper(), logging.INFO), "%s", message, extra={"fields": context})
        return None

    def set_user(self, user: Mapping[str, object] | str | int | None, **more: object) -> None:
        """Say who this request is for: an id, or a mapping with `id` as the library takes it."""
        known = {**user, **more} if isinstance(user, Mapping) else {"id": user, **more}
        record = current_record()
        if record is None:
            self._library("set_user", known if user is not None else None)
            return
        record.user_id = None if known.get("id") is None else str(known["id"])
        if user is None or set(known) - {"id"} or notes_taken(record) is not None:
            notes_of(record).user = {} if user is None else {**known, "id": record.user_id}

    def set_tag(self, name: str, value: object) -> None:
        """Set a tag of this request's reports: a short word to search for."""
        record = current_record()
        if record is None:
            self._library("set_tag", name, value)
        else:
            notes_of(record).tags[name] = value

    def set_context(self, name: str, values: Mapping[str, object]) -> None:
        """Add a section to this request's reports: `set_context("order", {"id": 7, "product": "A1"})`."""
        record = current_record()
        if record is None:
            self._library("set_context", name, dict(values))
        elif name != "trace":  # it links reports and traces
            notes_of(record).contexts[name] = dict(values)

    def set_extra(self, name: str, value: object) -> None:
        """Add a value to this request's reports."""
        record = current_record()
        if record is None:
            self._library("set_extra", name, value)
        else:
            notes_of(record).extra[name] = value

    def add_breadcrumb(
        self, crumb: Mapping[str, Any] | None = None, hint: Mapping[str, Any] | None = None, **named: Any
    ) -> None:
        """Leave a trace of what happened before an error, in the words of `sentry_sdk.add_breadcrumb`."""
        record = current_record()
        if record is None:
            self._library("add_breadcrumb", dict(crumb or {}), hint, **named)
        else:
            notes_of(record).add_crumb({**(crumb or {}), **named})

    def _library(self, name: str, *args: Any, **named: Any) -> None:
        """Call the library outside of a request, unless there is no Sentry to tell."""
        errors = here()
        if errors is not None and errors.active:
            self.__getattr__(name)(*args, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        errors = here()
        if errors is not None and errors.active:
            errors.bind()
        return getattr(importlib.import_module("sentry_sdk"), name)


def here() -> AppErrors | None:
    """Return the current application's reports, None where there is none."""
    if not current_app or EXTENSION not in current_app.extensions:
        return None
    contribution = current_app.extensions[EXTENSION].contributions.get("error_tracking")
    return None if contribution is None else contribution.handle
