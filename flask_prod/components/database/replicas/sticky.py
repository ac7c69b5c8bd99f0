"""Who has written just now reads from the primary, until a replica has what was written or some seconds are over.

Within a request, a job or a command the application context knows. Between requests of one client a signed cookie
tells, or for clients without cookies a header of the same content.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from contextvars import ContextVar
from math import ceil
from time import monotonic, time
from typing import Any

from flask import Flask, current_app, g, has_app_context, has_request_context, request
from itsdangerous import BadSignature, Signer
from sqlalchemy import Connection, Engine, event
from werkzeug.http import dump_cookie

from flask_prod.core.component import HeaderList
from flask_prod.core.record import RequestRecord

from .statements import changes

logger = logging.getLogger(__name__)

HEADER = "X-Database-Write"
"""Comes with the answer to a request that wrote; a client without cookies sends it back with its next requests."""

_KEY = "_flask_prod_writes"
_LONGEST = 200
"""Characters of a token; ours are shorter."""


class Writes:
    """What one context or client has written: until when it matters (monotonic), and how far a replica must be."""

    __slots__ = ("made_here", "position", "until")

    def __init__(self, until: float = 0.0, position: int = 0) -> None:
        self.until = until
        self.position = position
        self.made_here = False

    def since(self, now: float) -> int | None:
        """Return how far a replica must be by now: 0 for any, None when only the primary will do."""
        return 0 if now >= self.until else self.position or None

    def add(self, until: float) -> None:
        """Note a write of this context; what position it will have is not known before its commit."""
        self.until = until
        self.position = 0
        self.made_here = True


_outside: ContextVar[Writes | None] = ContextVar("flask_prod_writes", default=None)
"""For sessions that are used outside of any application context."""


class Stickiness:
    """Knows who has written; `primary` is the engine whose statements count, *ask* how far it has come by now."""

    def __init__(
        self, app: Flask, salt: str, seconds: float, primary: Engine, ask: Callable[[], int | None]
    ) -> None:
        self.primary = primary
        self._app = app
        self._seconds = seconds
        self._ask = ask
        self._salt = f"flask-prod.writes.{salt}"
        self._told = False
        event.listen(primary, "after_cursor_execute", self._executed)

    @property
    def cookie(self) -> str:
        """The cookie's name: that of the session and a word more, so that applications of one host do not mix."""
        return str(self._app.config["SESSION_COOKIE_NAME"]) + "_wrote"

    def writes(self) -> Writes:
        """Return what the current context has written, or its client before; the cookie is read once."""
        inside = has_app_context()
        found: Writes | None = g.get(_KEY) if inside else _outside.get()
        if found is None:
            found = (self._of_client() if has_request_context() else None) or Writes()
            self._keep(found, inside)
        return found

    def tell(self, _record: RequestRecord, headers: HeaderList) -> None:
        """Let the client of a request that wrote say so with its next ones."""
        if not has_app_context() or not has_request_context():
            return
        writes: Writes | None = g.get(_KEY)
        if writes is None or not writes.made_here or self._is_of_another():
            return
        signer = self._signer()
        if signer is None:
            return
        position = self._ask() or 0
        token = signer.sign(f"{position:x}.{int(time() * 1000):x}").decode()
        headers.append((HEADER, token))
        if not _is_shared(headers):
            headers.append(("Set-Cookie", self._cookie(token)))

    def read(self, token: str) -> Writes | None:
        """Return what a token says, None for one that is not ours or too old."""
        signer = self._signer() if len(token) <= _LONGEST else None
        if signer is None:
            return None
        try:
            position, _, written = signer.unsign(token).decode().partition(".")
            left = self._seconds - max(0.0, time() - int(written, 16) / 1000)
            return Writes(monotonic() + left, int(position, 16)) if left > 0 else None
        except (BadSignature, ValueError):
            return None

    def _executed(  # what SQLAlchemy calls
        self,
        _connection: Connection,
        _cursor: object,
        statement: str,
        _parameters: object,
        context: Any,
        _many: bool,
    ) -> None:
        if changes(getattr(context, "compiled", None), statement):
            self._note(monotonic() + self._seconds)

    def _note(self, until: float) -> None:
        inside = has_app_context()
        found: Writes | None = g.get(_KEY) if inside else _outside.get()
        if found is None:
            found = Writes()
            self._keep(found, inside)
        found.add(until)

    def _keep(self, writes: Writes, inside: bool) -> None:
        if inside:
            setattr(g, _KEY, writes)
        else:
            _outside.set(writes)

    def _is_of_another(self) -> bool:
        found: Any = current_app
        return found._get_current_object() is not self._app

    def _of_client(self) -> Writes | None:
        token = request.cookies.get(self.cookie) or request.headers.get(HEADER)
        return self.read(token) if token else None

    def _signer(self) -> Signer | None:
        key = self._app.secret_key
        if not key:
            if not self._told:
                self._told = True
                logger.warning("Without SECRET_KEY nobody can be told to read what he has just written: set it.")
            return None
        keys = [*(self._app.config.get("SECRET_KEY_FALLBACKS") or ()), key]
        return Signer(keys, salt=self._salt, key_derivation="hmac", digest_method=hashlib.sha256)

    def _cookie(self, token: str) -> str:
        app, interface = self._app, self._app.session_interface
        return dump_cookie(
            self.cookie,
            token,
            max_age=ceil(self._seconds),
            path=interface.get_cookie_path(app),
            domain=interface.get_cookie_domain(app),
            secure=interface.get_cookie_secure(app),
            httponly=True,
            samesite="Lax",
        )


def _is_shared(headers: HeaderList) -> bool:
    """Tell whether caches on the way may keep this answer for others: then it must not carry a cookie."""
    said = ",".join(value for name, value in headers if name.lower() == "cache-control").lower()
    return "public" in said or "s-maxage" in said
