"""What is answered to whom: one word to strangers, details to those who send the token, 404 to the rest."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping

import msgspec
from flask import Blueprint, abort, request
from werkzeug.wrappers import Response

from flask_prod.core.component import Event
from flask_prod.core.record import RequestRecord
from flask_prod.core.values import Secret

from .engine import FAIL, UNHEALTHY
from .face import RESERVED, HealthHandle
from .shown import shown

BLUEPRINT = "prod_health"


class Probes:
    """Answers the probes of one application, before Flask is entered.

    An application whose before_request function asks for a sign-in or a database would otherwise send its own
    probes to the sign-in page. The blueprint has the same answers for whoever comes by way of Flask.
    """

    def __init__(
        self, handle: HealthHandle, path: str, token: Secret, emit: Callable[[Event], None] = lambda event: None
    ) -> None:
        self._emit = emit
        self._handle = handle
        self._path = path
        self._token = token.reveal().encode()
        self._answers = {path: self._health, f"{path}/live": self._live, f"{path}/ready": self._ready}
        self._endpoints = {path: "health", f"{path}/live": "live", f"{path}/ready": "ready"}

    def ask(self, record: RequestRecord) -> Response | None:
        """Answer the probes among all requests; the step of the one pass."""
        path = record.path
        if not path.startswith(self._path) or record.method not in ("GET", "HEAD"):
            return None
        response = self.answer(path, record.environ.get("HTTP_AUTHORIZATION", ""))
        if response is not None:
            record.operational = True
            name = self._endpoints.get(path)
            record.endpoint = f"{BLUEPRINT}.{name or 'component'}"
            record.route = path if name else f"{self._path}/<name>"
        return response

    def answer(self, path: str, authorization: str) -> Response | None:
        """Return the answer to a probe; None where there is nothing for this caller."""
        known = self._answers.get(path)
        if known is not None:
            return known(authorization)
        name = path.removeprefix(f"{self._path}/")
        if name == path or name in RESERVED or not self._trusted(authorization):
            return None
        return self._component(name)

    def blueprint(self) -> Blueprint:
        """Return the probes as routes, for `flask routes`, `url_for` and the methods they refuse."""
        probes = Blueprint(BLUEPRINT, __name__, url_prefix=self._path)
        for rule, endpoint in (("", "health"), ("/live", "live"), ("/ready", "ready"), ("/<name>", "component")):
            probes.add_url_rule(rule, endpoint, self._view, merge_slashes=False)
        return probes

    def _view(self, **_: str) -> Response:
        return self.answer(request.path, request.headers.get("Authorization", "")) or abort(404)

    def _live(self, _authorization: str) -> Response:
        return word("alive")

    def _health(self, authorization: str) -> Response:
        report = self._handle.report()
        status = 503 if report.state == UNHEALTHY else 200
        if self._trusted(authorization):
            return details(self._handle.summary(report), status)
        return word(report.state, status)

    def _ready(self, authorization: str) -> Response:
        state, report = self._handle.readiness()
        status = 200 if state == "ready" else 503
        if self._trusted(authorization):
            return details({**self._handle.summary(report), "status": state}, status)
        return word(state, status)

    def _component(self, name: str) -> Response | None:
        if not self._handle.engine.known(name):
            return None
        check, result = self._handle.engine.look(lambda check: check.name == name).results[name]
        return details({"name": name, **shown(check, result)}, 503 if result.finding.status == FAIL else 200)

    def _trusted(self, authorization: str) -> bool:
        scheme, _, token = authorization.partition(" ")
        if not self._token or scheme.lower() != "bearer":
            return False
        right = hmac.compare_digest(token.strip().encode(), self._token)
        if not right:
            self._emit(Event("security.token_refused", "A wrong HEALTH_TOKEN was sent.", "warning"))
        return right


def word(text: str, status: int = 200) -> Response:
    """Return the bare answer: one word that no cache keeps."""
    return Response(text, status, {"Cache-Control": "no-store"}, mimetype="text/plain")


def details(values: Mapping[str, object], status: int) -> Response:
    """Return *values* as JSON that no cache keeps."""
    body = msgspec.json.encode(values, enc_hook=str)
    return Response(body, status, {"Cache-Control": "no-store"}, mimetype="application/json")
