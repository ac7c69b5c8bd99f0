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
        if record is not None:
            record.user_id = None if known.get("id") is None else str(known["id"])
        errors = here()
        if errors is not None and errors.active:
            self.__getattr__("set_user")(known if user is not None else None)

    def add_breadcrumb(self, *args: Any, **named: Any) -> None:
        """Leave a trace of what happened before an error, as `sentry_sdk.add_breadcrumb` does."""
        errors = here()
        if errors is not None and errors.active:
            self.__getattr__("add_breadcrumb")(*args, **named)

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
