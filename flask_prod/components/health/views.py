"""What is answered to whom: one word to strangers, details to those who send the token, 404 to the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
from flask import Blueprint, abort, request
from werkzeug.wrappers import Response

from flask_prod.core.gate import Gate
from flask_prod.core.record import RequestRecord

from .engine import FAIL, UNHEALTHY, UNKNOWN
from .face import HealthHandle
from .formats import JSON, TEXT, TYPES, chosen, encoded
from .names import RESERVED
from .shown import shown, told

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

BLUEPRINT = "prod_health"
_NO_STORE = "no-store"
_BAD = frozenset({"stuck", "starting", "draining", "unready", UNHEALTHY})
"""Words that are sent with 503."""

_MOST_WORDS = 256
"""Answers that are kept ready to be sent: a few words in a few forms."""


class Word(Response):
    """A short answer made once and sent many times: the WSGI call builds nothing."""

    def __init__(self, body: bytes, status: int, kind: str) -> None:
        super().__init__(body, status, {"Cache-Control": _NO_STORE}, content_type=kind)
        self._status = f"{status} {HTTPStatus(status).phrase}"
        self._headers = list(self.headers)
        self._body = [body]

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Send it."""
        start_response(self._status, self._headers.copy())
        return () if environ["REQUEST_METHOD"] == "HEAD" else self._body


class Words:
    """Answers of one word, in the form that is asked for; without one it is plain text."""

    def __init__(self) -> None:
        self._ready: dict[tuple[str, str], Word] = {}

    def say(self, word: str, form: str) -> Word:
        """Return the answer."""
        ready = self._ready.get((word, form))
        if ready is None:
            kind = form or TEXT
            ready = Word(encoded({"status": word}, kind), 503 if word in _BAD else 200, TYPES[kind])
            if len(self._ready) < _MOST_WORDS:
                self._ready[word, form] = ready
        return ready


def form_of(environ: Mapping[str, Any]) -> str:
    """Return the form that a request asks for, empty for none in particular."""
    query, accept = environ.get("QUERY_STRING", ""), environ.get("HTTP_ACCEPT", "")
    return chosen(query, accept) if query or accept not in ("", "*/*") else ""


class Probes:
    """Answers the probes of one application, before Flask is entered.

    An application whose before_request function asks for a sign-in or a database would otherwise send its own
    probes to the sign-in page. The blueprint has the same answers for whoever comes by way of Flask.
    """

    def __init__(self, handle: HealthHandle, path: str, gate: Gate) -> None:
        self._gate = gate
        self._handle = handle
        self._path = path
        self._word = Words().say
        self._below = len(path) + 1
        self._fixed: Mapping[str, tuple[str, Callable[[str, str], Response | None]]] = {
            path: ("health", self._health),
            f"{path}/live": ("live", self._live),
            f"{path}/ready": ("ready", self._ready),
            f"{path}/startup": ("startup", self._startup),
            f"{path}/history": ("history", self._history),
        }

    def ask(self, record: RequestRecord) -> Response | None:
        """Answer the probes among all requests; the step of the one pass."""
        path = record.path
        if not path.startswith(self._path) or record.method not in ("GET", "HEAD"):
            return None
        response = self.answer(path, record.environ)
        if response is not None:
            record.operational = True
            fixed = self._fixed.get(path)
            name = fixed[0] if fixed is not None else "component"
            record.endpoint = f"{BLUEPRINT}.{name}"
            record.route = path if fixed is not None else f"{self._path}/<path:name>"
        return response

    def answer(self, path: str, environ: Mapping[str, Any]) -> Response | None:
        """Return the answer to a probe; None where there is nothing for this caller."""
        form = form_of(environ)
        authorization = environ.get("HTTP_AUTHORIZATION", "")
        fixed = self._fixed.get(path)
        if fixed is not None:
            return fixed[1](authorization, form)
        name = path[self._below :]
        if path[self._below - 1 : self._below] != "/" or not name or name in RESERVED:
            return None
        if name.startswith("groups/"):
            return self._group(name[7:], authorization, form)
        return self._component(name) if self._trusted(authorization) else None

    def blueprint(self) -> Blueprint:
        """Return the probes as routes, for `flask routes`, `url_for` and the methods they refuse."""
        probes = Blueprint(BLUEPRINT, __name__, url_prefix=self._path)
        for path, (endpoint, _) in self._fixed.items():
            probes.add_url_rule(path.removeprefix(self._path), endpoint, self._view, merge_slashes=False)
        probes.add_url_rule("/<path:name>", "component", self._view, merge_slashes=False)
        return probes

    def _view(self, **_: str) -> Response:
        return self.answer(request.path, request.environ) or abort(404)

    def _live(self, _authorization: str, form: str) -> Response:
        return self._word("stuck" if self._handle.stuck else "alive", form)

    def _startup(self, _authorization: str, form: str) -> Response:
        return self._word("started" if self._handle.has_started() else "starting", form)

    def _health(self, authorization: str, form: str) -> Response:
        report = self._handle.report()
        if authorization and self._trusted(authorization):
            return self._details(self._handle.summary(report), form)
        return self._word(report.state, form)

    def _ready(self, authorization: str, form: str) -> Response:
        state, report = self._handle.readiness()
        if authorization and self._trusted(authorization):
            return self._details({**self._handle.summary(report), "status": state}, form)
        return self._word(state, form)

    def _group(self, name: str, authorization: str, form: str) -> Response | None:
        if name not in self._handle.engine.groups():
            return None
        report = self._handle.engine.look(lambda plan: name in plan.groups)
        if authorization and self._trusted(authorization):
            return self._details({**self._handle.summary(report), "group": name}, form)
        return self._word(report.state, form)

    def _component(self, name: str) -> Response | None:
        if not self._handle.engine.known(name):
            return None
        found = self._handle.engine.look(lambda plan: plan.check.name == name).results.get(name)
        if found is None:
            return details({"name": name, "status": UNKNOWN}, 503)
        check, result = found
        bad = result.finding.status in (FAIL, UNKNOWN)
        return details({"name": name, **shown(check, result)}, 503 if bad else 200)

    def _history(self, authorization: str, _form: str) -> Response | None:
        if not self._trusted(authorization):
            return None
        changes = [told(change) for change in reversed(tuple(self._handle.engine.teller.history))]
        return details({"changes": changes}, 200)

    def _details(self, summary: Mapping[str, Any], form: str) -> Response:
        status = 503 if summary["status"] in _BAD else 200
        form = form or JSON
        return _sent(encoded(summary, form), status, TYPES[form])

    def _trusted(self, authorization: str) -> bool:
        return self._gate.admits(authorization)


def details(values: Mapping[str, object], status: int) -> Response:
    """Return *values* as JSON that no cache keeps."""
    return _sent(msgspec.json.encode(values, enc_hook=str), status, TYPES[JSON])


def _sent(body: bytes, status: int, kind: str) -> Response:
    return Response(body, status, {"Cache-Control": _NO_STORE}, content_type=kind)
