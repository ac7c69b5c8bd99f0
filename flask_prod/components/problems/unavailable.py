"""What is away: 503 for an `Unavailable` that neither the view nor a handler of the application answers."""

from __future__ import annotations

import logging
from typing import Any

from flask import Flask
from werkzeug.exceptions import ServiceUnavailable

from flask_prod.core.errors import Unavailable
from flask_prod.core.handlers import own_handler

RETRY_AFTER = 2
"""Seconds; a breaker that is open tries again within about 1.3 of them."""

logger = logging.getLogger(__name__)


def answer_unavailable(app: Flask) -> None:
    """Say that it is worth coming back where a job cannot be accepted, or a component's question to Redis fails.

    What is away, and what to set, stands in the log: a client learns neither.
    """

    def answer(error: Unavailable) -> Any:
        own = own_handler(app, error, answer)
        if own is not None:
            return app.ensure_sync(own[0])(error)
        logger.warning("%s", error)
        return ServiceUnavailable("A service that this one needs is away.", retry_after=RETRY_AFTER)

    app.error_handler_spec[None][None].setdefault(Unavailable, answer)
