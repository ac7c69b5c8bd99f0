"""What may be shared between callers: which requests are answered from the cache, which responses go into it.

A reason is one word, a label of the metric `flask_prod_cache_refused_total`; docs/cache.md explains each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any

import msgspec
from flask import Request
from flask.sessions import SessionMixin
from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response

_CREDENTIALS = {
    "HTTP_AUTHORIZATION": "authorization",
    "HTTP_PROXY_AUTHORIZATION": "proxy-authorization",
    "HTTP_X_API_KEY": "x-api-key",
    "HTTP_X_AUTH_TOKEN": "x-auth-token",
    "HTTP_X_ACCESS_TOKEN": "x-access-token",
    "HTTP_X_FORWARDED_USER": "x-forwarded-user",
    "HTTP_X_FORWARDED_EMAIL": "x-forwarded-email",
    "HTTP_X_AUTH_REQUEST_USER": "x-auth-request-user",
    "HTTP_X_REMOTE_USER": "x-remote-user",
    "REMOTE_USER": "remote-user",
}
"""Where WSGI shows who the caller is, and the header's name; each is looked up on every cached request."""

_CREDENTIAL_PARAMETERS = frozenset(
    {"access_token", "api_key", "apikey", "auth", "jwt", "key", "session", "sid", "sig", "signature", "token"}
)
_NEGOTIATED = {
    "accept_mimetypes": "accept",
    "accept_languages": "accept-language",
    "accept_charsets": "accept-charset",
    "accept_encodings": "accept-encoding",
    "user_agent": "user-agent",
}
"""Properties that werkzeug keeps in the request once they were read: the page may depend on them."""

_PRIVATE = ("private", "no-store", "no-cache", "max-age=0")
_NOT_STORED = frozenset({"content-length", "date", "server", "connection", "x-request-id", "age"})
"""Headers that belong to one exchange; all others that the view has set come back with the page."""


class CookieFilter:
    """Tells whether a request has a cookie that a page may depend on."""

    def __init__(self, ignored: Iterable[str]) -> None:
        names = tuple(ignored)
        self._exact = frozenset(name for name in names if not name.endswith("*"))
        self._prefixes = tuple(name[:-1] for name in names if name.endswith("*"))

    def counts(self, request: Request) -> bool:
        """Tell whether any cookie counts; the session's always does."""
        if not request.environ.get("HTTP_COOKIE"):
            return False
        return any(name not in self._exact and not name.startswith(self._prefixes) for name in request.cookies)


def refuse_request(
    request: Request, cookies: CookieFilter, vary: frozenset[str], query: tuple[str, ...] | None
) -> str:
    """Return why this request is neither answered from the cache nor stored, empty when it may be."""
    if request.method not in ("GET", "HEAD"):
        return "method"
    environ = request.environ
    for name, header in _CREDENTIALS.items():
        if name in environ and environ[name] and header not in vary:
            return "authorization"
    if "cookie" not in vary and cookies.counts(request):
        return "cookie"
    if query is not None and not _CREDENTIAL_PARAMETERS.isdisjoint(set(request.args) - set(query)):
        return "authorization"
    return ""


def refuse_response(response: Response, vary: frozenset[str]) -> str:
    """Return why this response is not stored, empty when it may be."""
    headers = response.headers
    if response.status_code != 200:
        return "status"
    if response.is_streamed or response.direct_passthrough:
        return "stream"
    return refuse_headers(headers, vary)


def refuse_headers(headers: Headers, vary: frozenset[str]) -> str:
    """Return why a response with these headers is not stored, empty when it may be."""
    if "Set-Cookie" in headers:
        return "set-cookie"
    control = headers.get("Cache-Control", "").lower()
    if control and any(word in control for word in _PRIVATE):
        return "cache-control"
    if headers.get("Access-Control-Allow-Origin", "*") != "*" or "Access-Control-Allow-Credentials" in headers:
        return "cors"
    if "nonce-" in headers.get("Content-Security-Policy", ""):
        return "nonce"
    asked = {name.strip().lower() for name in headers.get("Vary", "").split(",")} - {""}
    return "vary" if not asked <= vary else ""


def refuse_tuple(value: tuple[Any, ...], vary: frozenset[str]) -> str:
    """Return why `body, status, headers` of a view is not stored, empty when it may be."""
    status: Any = 200
    headers: Any = {}
    if len(value) == 3:
        status, headers = value[1:]
    elif len(value) == 2 and isinstance(value[1], dict | list | tuple | Headers):
        headers = value[1]
    elif len(value) == 2:
        status = value[1]
    if isinstance(value[0] if value else None, Response) or str(status)[:3] != "200":
        return "status"
    return refuse_headers(Headers(headers), vary)


class Watch:
    """Notices what a view did besides returning a response; made before it runs."""

    def __init__(self, request: Request, context: Any) -> None:
        self._request = request
        self._context = context
        self._later = len(getattr(context, "_after_request_functions", ()))

    def refuse(self, vary: frozenset[str], nonce: str | None, explicit: bool) -> str:
        """Return why what the view gave is not stored, empty when it may be.

        *explicit* says that the user chose the key, and with it who shares the page.
        """
        if nonce is not None:
            return "nonce"
        session: SessionMixin | None = getattr(self._context, "session", None)
        # An empty session is the same for everybody without a cookie; one with content belongs to somebody.
        named = explicit or "cookie" in vary
        if session is not None and (session.modified or (not named and len(session) > 0)):
            return "session"
        if len(getattr(self._context, "_after_request_functions", ())) > self._later:
            return "after-request"
        read = self._request.__dict__
        if not explicit and any(name in read and header not in vary for name, header in _NEGOTIATED.items()):
            return "vary"
        return ""


def page_key(function: str, request: Request, vary: tuple[str, ...], query: tuple[str, ...] | None) -> str:
    """Return the key of the page that *request* asks for; what is in it can be read from the store by nobody."""
    parts = (
        function,
        request.scheme,
        request.host,
        request.root_path,
        request.path,
        normal_query(request, query),
        [request.headers.get(name, "") for name in vary],
    )
    return "page:" + blake2b(msgspec.json.encode(parts), digest_size=16).hexdigest()


def explicit_key(function: str, key: str) -> str:
    """Return where the page of a view lies whose key the user chose."""
    return "page:" + blake2b(msgspec.json.encode((function, key)), digest_size=16).hexdigest()


def normal_query(request: Request, query: tuple[str, ...] | None) -> list[tuple[str, str]]:
    """Return the parameters that count, sorted by name; the order of equal names is kept, for views see it."""
    if not request.query_string:
        return []
    arguments = request.args
    if query is None:
        return sorted(arguments.items(multi=True), key=_first)
    return [(name, value) for name in query for value in arguments.getlist(name)]


def kept_headers(response: Response, drop: Callable[[str], bool] = _NOT_STORED.__contains__) -> Any:
    """Return the headers that come back with the page."""
    return tuple((name, value) for name, value in response.headers if not drop(name.lower()))


def _first(pair: tuple[str, str]) -> str:
    return pair[0]
