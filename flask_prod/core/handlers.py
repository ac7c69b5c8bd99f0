"""Error handlers of ours beside those of the application: theirs are found although ours are nearer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask

Handler = Callable[[Any], Any]


def own_handler(app: Flask, error: Exception, ours: Handler) -> tuple[Handler, type[BaseException]] | None:
    """Return the application's nearest handler for the class of *error* or a base of it, and that class.

    One of *ours* is registered for a class below: without this, it would hide `errorhandler(Exception)`.
    """
    handlers = app.error_handler_spec[None][None]
    for kind in type(error).__mro__:
        handler = handlers.get(kind)
        if handler is not None and handler is not ours:
            return handler, kind
    return None
