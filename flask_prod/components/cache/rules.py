"""What may be shared between callers: which requests are answered from the cache, which responses go into it.

A reason is one word, a label of the metric `flask_prod_cache_refused_total`; docs/cache.md explains each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from hashlib import blake2b
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

import msgspec
from flask import Request
from flask.sessions import SessionMixin
from werkzeug.datastructures import Headers
from werkzeug.http import parse_cookie
from werkzeug.wrappers import Response

from .conditions import forbids, forbids_storing

Environ: TypeAlias = Mapping[str, Any]
Pairs: TypeAlias = list[tuple[str, str]]

CREDENTIALS = {
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

_ADDRESS = ("url", "full_path")
"""Properties of the request that show all parameters, also those that make no entry of their own."""

_ONE_TIME_TOKEN = re.compile(
    rb"""name\s*=\s*["']?(?:_?csrf[-_]?token|csrfmiddlewaretoken|_csrf|x-csrf-token|authenticity_token"""
    rb"""|__requestverificationtoken)["'\s>]""",
    re.IGNORECASE,
)
_PAGES = ("text/html", "application/xhtml+xml")
_MOST_LOOKED_AT = 1024**2
LONGEST_QUERY = 2048
"""Characters of a query; a longer one is answered by the view alone."""

_POLICIES = ("Content-Security-Policy", "Content-Security-Policy-Report-Only")
_NOT_STORED = frozenset({"content-length", "date", "server", "connection", "x-request-id", "age", "cache-status"})
"""Headers that belong to one exchange; all others that the view has set come back with the page."""


class CookieFilter:
    """Tells whether a request has a cookie that a page may depend on."""

    def __init__(self, ignored: Iterable[str]) -> None:
        names = tuple(ignored)
        self._exact = frozenset(name for name in names if not name.endswith("*"))
        self._prefixes = tuple(name[:-1] for name in names if name.endswith("*"))

    def ignore(self, name: str) -> None:
        """Let a cookie of the kit's own, of which no page depends, count no more."""
        self._exact |= {name}

    def counts(self, environ: Environ) -> bool:
        """Tell whether any cookie counts; the session's always does."""
        sent = environ.get("HTTP_COOKIE")
        if not sent:
            return False
        return any(name not in self._exact and not name.startswith(self._prefixes) for name in parse_cookie(sent))


def credentials_in(environ: Environ, vary: Collection[str] = ()) -> bool:
    """Tell whether a request says who the caller is, other than by a header that *vary* names."""
    if environ.keys().isdisjoint(CREDENTIALS):
        return False
    return any(environ.get(name) and header not in vary for name, header in CREDENTIALS.items())


def refuse_request(
    environ: Environ, cookies: CookieFilter, vary: frozenset[str], query: tuple[str, ...] | None
) -> str:
    """Return why this request is neither answered from the cache nor stored, empty when it may be."""
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        return "method"
    if credentials_in(environ, vary):
        return "authorization"
    if "cookie" not in vary and cookies.counts(environ):
        return "cookie"
    return refuse_query(environ, query)


def refuse_query(environ: Environ, query: tuple[str, ...] | None) -> str:
    """Return why a request's parameters keep it from the cache, empty if they do not."""
    text = environ.get("QUERY_STRING", "")
    if len(text) > LONGEST_QUERY:
        return "query"
    if not text or query is None:
        return ""
    ignored = {name.lower() for name, _ in pairs_of(text) if name not in query}
    return "" if _CREDENTIAL_PARAMETERS.isdisjoint(ignored) else "authorization"


def refuse_response(response: Response, vary: frozenset[str], statuses: Collection[int] = (200,)) -> str:
    """Return why this response is not stored, empty when it may be."""
    if response.status_code not in statuses:
        return "status"
    if response.is_streamed or response.direct_passthrough:
        return "stream"
    reason = refuse_headers(response.headers, vary)
    if not reason and response.content_type and response.content_type.startswith(_PAGES):
        body = response.get_data()
        if len(body) <= _MOST_LOOKED_AT and _ONE_TIME_TOKEN.search(body):
            return "csrf"
    return reason


def refuse_headers(headers: Headers, vary: frozenset[str]) -> str:
    """Return why a response with these headers is not stored, empty when it may be."""
    if "Set-Cookie" in headers:
        return "set-cookie"
    if forbids(headers):
        return "cache-control"
    if headers.get("Access-Control-Allow-Origin", "*") != "*" or "Access-Control-Allow-Credentials" in headers:
        return "cors"
    if any("nonce-" in headers.get(name, "") for name in _POLICIES):
        return "nonce"
    asked = {name.strip().lower() for name in ",".join(headers.getlist("Vary")).split(",")} - {""}
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

    @property
    def session(self) -> SessionMixin | None:
        """The session; not by its property, which notes that somebody has looked at it."""
        found: SessionMixin | None = vars(self._context).get("_session")
        return found

    def refuse(self, shared: Shared, nonce: str | None) -> str:
        """Return why what the view gave is not stored, empty when it may be."""
        if nonce is not None:
            return "nonce"
        session: SessionMixin | None = self.session
        if session is not None and _is_personal(session, shared):
            return "session"
        if len(getattr(self._context, "_after_request_functions", ())) > self._later:
            return "after-request"
        if forbids_storing(self._request.environ):
            return "request"
        read = self._request.__dict__
        if not shared.explicit and any(
            n in read and header not in shared.vary for n, header in _NEGOTIATED.items()
        ):
            return "vary"
        if shared.query is not None and any(name in read for name in _ADDRESS):
            return "query" if _has_others(self._request.environ, shared.query) else ""
        return ""


class Shared:
    """Who shares the pages of a view, as its decorator says; *explicit* is a key of the user's own."""

    __slots__ = ("explicit", "public", "query", "vary")

    def __init__(
        self, vary: Iterable[str], query: tuple[str, ...] | None, *, explicit: bool, public: bool
    ) -> None:
        self.vary = frozenset(name.lower() for name in vary)
        self.query = query
        self.explicit = explicit
        self.public = public


def pairs_of(text: str) -> Pairs:
    """Return the parameters of a query string as werkzeug gives them to views."""
    # The handler is werkzeug's: bytes that are no text stay different from one another.
    decoded = text.encode("latin-1").decode(errors="werkzeug.url_quote")
    return parse_qsl(decoded, keep_blank_values=True, errors="werkzeug.url_quote")


def page_key(function: str, environ: Environ, vary: tuple[str, ...], query: tuple[str, ...] | None) -> str:
    """Return the key of the page that a request asks for; what is in it can be read from the store by nobody.

    *vary* are header names as `environ_names` spells them. HEAD has the key of GET.
    """
    text = environ.get("QUERY_STRING", "")
    parts = (
        function,
        environ["wsgi.url_scheme"],
        environ.get("HTTP_HOST") or (environ["SERVER_NAME"], environ["SERVER_PORT"]),
        environ.get("SCRIPT_NAME", ""),
        environ.get("PATH_INFO", ""),
        normal_query(text, query) if text else (),
        [environ.get(name, "") for name in vary],
    )
    return "page:" + blake2b(_encode(parts), digest_size=16).hexdigest()


_encode = msgspec.json.Encoder().encode


def explicit_key(function: str, key: str) -> str:
    """Return where the page of a view lies whose key the user chose."""
    return "page:" + blake2b(_encode((function, key)), digest_size=16).hexdigest()


def environ_names(headers: Iterable[str]) -> tuple[str, ...]:
    """Return header names as a WSGI environment spells them."""
    plain = {"CONTENT_TYPE", "CONTENT_LENGTH"}
    names = (name.strip().upper().replace("-", "_") for name in headers)
    return tuple(name if name in plain else "HTTP_" + name for name in names)


def normal_query(text: str, query: tuple[str, ...] | None) -> Pairs:
    """Return the parameters that count, sorted by name; the order of equal names is kept, for views see it."""
    pairs = pairs_of(text)
    if query is None:
        return sorted(pairs, key=_first)
    return [pair for name in query for pair in pairs if pair[0] == name]


def kept_headers(
    response: Response, environ: Any, drop: Callable[[str], bool] = _NOT_STORED.__contains__
) -> tuple[tuple[str, str], ...]:
    """Return the headers that come back with the page."""
    headers = response.get_wsgi_headers(environ)
    return tuple((name, value) for name, value in headers if not drop(name.lower()))


def _is_personal(session: SessionMixin, shared: Shared) -> bool:
    """Tell whether a session keeps a page from being shared.

    An empty session is the same for everybody without a cookie; one with content belongs to somebody. A page that
    is declared public is given to everybody, so it must not even look.
    """
    if session.modified:
        return True
    if shared.public:
        return bool(getattr(session, "accessed", True))
    named = shared.explicit or "cookie" in shared.vary
    return not named and len(session) > 0


def _has_others(environ: Environ, query: tuple[str, ...]) -> bool:
    text = environ.get("QUERY_STRING", "")
    return bool(text) and any(name not in query for name, _ in pairs_of(text))


def _first(pair: tuple[str, str]) -> str:
    return pair[0]
