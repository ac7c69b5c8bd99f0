"""`prod.log`: the service's logger, with fields as keyword arguments."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

from flask import current_app

from flask_prod.core.kit import EXTENSION

from .security import security_event

_OF_LOGGING = frozenset({"exc_info", "stack_info", "stacklevel", "extra"})


class ServiceLog(logging.LoggerAdapter[logging.Logger]):
    """A logger named after the current application: `prod.log.info("order placed", order=7, total=9.9)`.

    Everything that `logging` takes works as it does there; other keywords become fields of the line.
    """

    def __init__(self) -> None:
        super().__init__(logging.getLogger("app"))

    @property
    def logger(self) -> logging.Logger:
        """The logger of the current application, `app` outside of one."""
        return logging.getLogger(current_app.name) if current_app else self._nowhere

    @logger.setter
    def logger(self, logger: logging.Logger) -> None:
        self._nowhere = logger

    def security(self, name: str, message: str = "", *, severity: str = "warning", **fields: object) -> None:
        """Tell of something that whoever guards this service should see: `security("sign_in_failed", user=7)`.

        Every room hears of the event `security.NAME`; of one name 30 lines a minute and process are written, and
        the rest is counted. ValueError for a name that is none. Say who by an id rather than by what was typed:
        people type their password into the wrong field.
        """
        event = security_event(name, message, severity, **fields)
        contribution = current_app.extensions[EXTENSION].contributions.get("logs") if current_app else None
        if contribution is not None:
            contribution.handle.emit(event)
        else:
            number = logging.getLevelNamesMapping().get(severity.upper(), logging.WARNING)
            self._nowhere.log(number, "%s: %s", event.name, event.message, extra={"fields": fields})

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Gather the fields of one call."""
        passed = {key: value for key, value in kwargs.items() if key in _OF_LOGGING}
        fields = {key: value for key, value in kwargs.items() if key not in _OF_LOGGING}
        if fields:
            passed["extra"] = {**(passed.get("extra") or {}), "fields": fields}
        return msg, passed
