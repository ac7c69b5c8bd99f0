"""The step from HTTP to HTTPS."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from flask import Flask, redirect, request
from werkzeug.exceptions import Forbidden, HTTPException
from werkzeug.wrappers import Response

from flask_prod.core.component import Event
from flask_prod.core.ports import Meter
from flask_prod.core.record import RequestRecord

from .engine import HeaderPlans

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_ENFORCED = "Requests by plain HTTP, by answer: browsers are redirected, programs refused."


class HttpsOnly:
    """Redirects browsers that came by plain HTTP and refuses programs, whose credentials are in the clear already.

    Probes and valid preflights never come here: the pass answers them earlier.
    """

    def __init__(self, app: Flask, plans: HeaderPlans, meter: Meter, emit: Callable[[Event], None]) -> None:
        self._emit = emit
        self._turned_away = meter.counter("flask_prod_https_enforced_total", _ENFORCED, ("answer",))
        self._app = app
        self._plans = plans

    def ask(self, record: RequestRecord) -> Response | HTTPException | None:
        """Let HTTPS pass, and views that said force_https=False."""
        if self.lets_pass(record):
            return None
        if is_program(record.environ):
            self._turned_away.inc("refused")
            self._emit(Event("security.plaintext_refused", "A program came by plain HTTP.", "warning"))
            return Forbidden("This service is for HTTPS only. Change the address to https://.")

        self._turned_away.inc("redirected")
        # 308 keeps the method. Browsers must not store it: with a wrong TRUSTED_PROXIES it would be a loop that
        # outlives the mistake. Remembering is the business of Strict-Transport-Security.
        answer = redirect(request.url.replace("http://", "https://", 1), 308)
        answer.headers["Cache-Control"] = "no-store"
        return answer

    def lets_pass(self, record: RequestRecord) -> bool:
        """Tell whether nothing is to be said: that needs neither Flask's request nor its address."""
        return (
            record.scheme == "https" or not self._plans.plan(record.endpoint).force_https or bool(self._app.debug)
        )


def is_program(environ: WSGIEnvironment) -> bool:
    """Tell whether this is an API client by its own word: credentials in a header, or JSON."""
    if "HTTP_AUTHORIZATION" in environ or "json" in environ.get("CONTENT_TYPE", ""):
        return True
    accept = environ.get("HTTP_ACCEPT", "")
    return "json" in accept and "html" not in accept
