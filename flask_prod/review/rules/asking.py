"""How --online asks a server: in the application's context, and no longer than its time limit."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from threading import Thread
from typing import TypeVar

from flask_prod.review.subject import Subject

AnswerT = TypeVar("AnswerT")


def within(ask: Callable[[], AnswerT], subject: Subject, least: float = 0.0) -> AnswerT:
    """Return what *ask* returns; TimeoutError after HEALTH_TIMEOUT, or *least* seconds if that is longer.

    A health check's own limit is for a service that is warm: a command connects first.
    """
    limit = max(least, float(subject.get("HEALTH_TIMEOUT") or 2.0))
    results: list[AnswerT] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            with subject.app.app_context() if subject.app is not None else nullcontext():
                results.append(ask())
        except Exception as error:
            errors.append(error)

    thread = Thread(target=run, name="flask-prod-check", daemon=True)  # a hung one must not hold up the end
    thread.start()
    thread.join(limit)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {limit:g} s")
    return results[0]
