"""Errors as RFC 9457 problem documents for programs and as a page for people; never with internals."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec
from markupsafe import escape
from werkzeug.datastructures import MIMEAccept
from werkzeug.exceptions import HTTPException, InternalServerError
from werkzeug.http import parse_accept_header
from werkzeug.wrappers import Response

from flask_prod.core.record import RequestRecord
from flask_prod.core.redaction import shown_path

from .settings import ProblemSettings

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

JSON_TYPE = "application/problem+json"
_OURS = frozenset({"content-type", "content-length"})
_CHOICES = ("application/json", JSON_TYPE, "text/html")


class ProblemPages:
    """Draws errors; an exception may carry members of its own in an attribute `problem`, a mapping."""

    def __init__(self, settings: ProblemSettings, service_name: str) -> None:
        self._type_url = settings.type_url
        self._page = Template((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))
        self._service = str(escape(service_name))
        self._contact = str(escape(settings.contact))

    def render(self, record: RequestRecord, error: HTTPException) -> Response:
        """Return the answer for *error* with the headers it carries: Allow, Retry-After, WWW-Authenticate."""
        environ = record.environ
        code = error.code or 500
        if code < 400 or error.response is not None:
            return error.get_response(environ)  # a redirect, or an answer that somebody made on purpose

        headers = [(name, value) for name, value in error.get_headers(environ) if name.lower() not in _OURS]
        headers.append(("Vary", "Accept"))
        if not any(name.lower() == "cache-control" for name, _ in headers):
            headers.append(("Cache-Control", "no-store"))
        if wants_page(environ):
            return Response(
                self._html(record, error, code), code, headers, content_type="text/html; charset=utf-8"
            )
        return Response(self._json(record, error, code), code, headers, content_type=JSON_TYPE)

    def _json(self, record: RequestRecord, error: HTTPException, code: int) -> bytes:
        members: dict[str, Any] = {
            "type": f"{self._type_url}{code}" if self._type_url else "about:blank",
            "title": error.name,
            "status": code,
            "detail": detail_of(error, code),
            "instance": quote(shown_path(record.path, record.route).encode("latin-1", "replace")),
            "request_id": record.request_id,
        }
        if record.trace_id:
            members["trace_id"] = record.trace_id
        description: object = error.description
        if isinstance(description, Mapping | list) and code < 500:
            members["errors"] = description
        own = getattr(error, "problem", None)
        if isinstance(own, Mapping):
            members.update(own)
        return _encoded(members)

    def _html(self, record: RequestRecord, error: HTTPException, code: int) -> bytes:
        if record.nonce is None:
            record.nonce = secrets.token_urlsafe(16)
        page = self._page.substitute(
            code=code,
            title=escape(error.name),
            detail=escape(detail_of(error, code)),
            service=self._service,
            contact=self._contact,
            request_id=escape(record.request_id),
            home=escape(quote(record.environ.get("SCRIPT_NAME", "").encode("latin-1", "replace")) + "/"),
            nonce=record.nonce,
        )
        return page.encode("utf-8", "replace")


def _encoded(members: Mapping[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(members, enc_hook=str)
    except UnicodeEncodeError:  # JSON can bring in half a surrogate pair, which a description then repeats
        return json.dumps(members, default=str, skipkeys=True).encode()


def detail_of(error: HTTPException, code: int) -> str:
    """Return what the client may know; of an internal error nothing, even if somebody described it."""
    if code == 500:
        return str(InternalServerError.description)
    described: object = error.description
    return described if isinstance(described, str) else str(type(error).description or error.name)


def wants_page(environ: WSGIEnvironment) -> bool:
    """Tell whether the client prefers HTML; who sends JSON, accepts anything or says nothing is a program."""
    accept = environ.get("HTTP_ACCEPT", "")
    if "html" not in accept or "json" in environ.get("CONTENT_TYPE", ""):
        return False
    return parse_accept_header(accept, MIMEAccept).best_match(_CHOICES) == "text/html"
