"""`prod.log`: the service's logger, with fields as keyword arguments."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

from flask import current_app

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

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Gather the fields of one call."""
        passed = {key: value for key, value in kwargs.items() if key in _OF_LOGGING}
        fields = {key: value for key, value in kwargs.items() if key not in _OF_LOGGING}
        if fields:
            passed["extra"] = {**(passed.get("extra") or {}), "fields": fields}
        return msg, passed
