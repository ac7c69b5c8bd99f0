"""What RFC 9111 and 9110 say about stored answers: for how long, to whom again, and what the answer carries."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import mktime_tz, parsedate_tz
from hashlib import blake2b
from time import time

from werkzeug.datastructures import Headers

_NEVER = ("private", "no-store", "no-cache")
"""Directives with which a view forbids a shared cache; with a field list they forbid the whole answer here."""

_NO_STALE = ("must-revalidate", "proxy-revalidate", "s-maxage")
_DELTA_DIGITS = 10


def directives(header: str) -> dict[str, str]:
    """Return the directives of a Cache-Control header in lower case; of two equal ones the first counts."""
    found: dict[str, str] = {}
    for part in _split(header):
        name, _, value = part.partition("=")
        if name.strip():
            found.setdefault(name.strip().lower(), value.strip().strip('"'))
    return found


def forbids(headers: Headers) -> bool:
    """Tell whether a view says that its answer is not for a shared cache, or is out of date already."""
    control = directives(", ".join(headers.getlist("Cache-Control")))
    if any(name in control for name in _NEVER):
        return True
    if "no-cache" in headers.get("Pragma", "").lower() and not control:
        return True
    return lifetime(headers) == 0.0


def lifetime(headers: Headers) -> float | None:
    """Return for how many seconds a view lets a shared cache keep its answer, None if it does not say.

    What cannot be read is 0: an unreadable time means out of date (RFC 9111, 4.2.1).
    """
    control = directives(", ".join(headers.getlist("Cache-Control")))
    for name in ("s-maxage", "max-age"):
        if name in control:
            value = control[name]
            return float(value[:_DELTA_DIGITS]) if value.isascii() and value.isdigit() else 0.0
    if "Expires" not in headers:
        return None
    moment = parsedate_tz(headers["Expires"])
    try:
        return 0.0 if moment is None else max(0.0, mktime_tz(moment) - time())
    except (ValueError, OverflowError):
        return 0.0


def must_revalidate(headers: Headers) -> bool:
    """Tell whether the view forbids that its answer is served when its time is over."""
    control = directives(", ".join(headers.getlist("Cache-Control")))
    return any(name in control for name in _NO_STALE)


def etag_of(body: bytes) -> str:
    """Return the entity tag of a body."""
    return f'"{blake2b(body, digest_size=12).hexdigest()}"'


def matches(if_none_match: str, etag: str) -> bool:
    """Tell whether the client has this version already: a weak comparison, as RFC 9110 asks for."""
    if if_none_match.strip() == "*":
        return True
    wanted = etag.removeprefix("W/")
    return any(part.strip().removeprefix("W/") == wanted for part in _split(if_none_match))


def wants_reload(environ: Mapping[str, str]) -> bool:
    """Tell whether the client asks for a new answer: a reload with the shift key held."""
    control = environ.get("HTTP_CACHE_CONTROL")
    if control is None:
        return "no-cache" in environ.get("HTTP_PRAGMA", "").lower()
    found = directives(control)
    return "no-cache" in found or found.get("max-age") == "0"


def forbids_storing(environ: Mapping[str, str]) -> bool:
    """Tell whether the client forbids that the answer to this request is stored."""
    control = environ.get("HTTP_CACHE_CONTROL", "")
    return "no-store" in control.lower() and "no-store" in directives(control)


def only_stored(environ: Mapping[str, str]) -> bool:
    """Tell whether the client takes a stored answer or none."""
    control = environ.get("HTTP_CACHE_CONTROL", "")
    return "only-if-cached" in control.lower() and "only-if-cached" in directives(control)


def _split(header: str) -> list[str]:
    """Split a list at its commas, except those within quotes."""
    if '"' not in header:
        return header.split(",")
    parts, start, quoted = [], 0, False
    for index, char in enumerate(header):
        if char == '"':
            quoted = not quoted
        elif char == "," and not quoted:
            parts.append(header[start:index])
            start = index + 1
    return [*parts, header[start:]]
