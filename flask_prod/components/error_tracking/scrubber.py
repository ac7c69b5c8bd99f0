"""Secrets out of error reports, by name and by value.

An event is scrubbed as it leaves, when everything in it is plain data: what stands under a secret's name goes,
and so does the same value wherever else it turns up: in the exception's text, another variable, a URL.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote, quote_plus

from flask_prod.core.redaction import REDACTED, is_sensitive, redact_query, redact_text

_SHORTEST = 5
"""Shorter values are not looked for elsewhere: too much would match."""

_SOURCE = frozenset({"context_line", "pre_context", "post_context"})
"""Lines of code say `password = form["password"]`; only a secret's own value is taken out of them."""


class Scrubber:
    """Takes secrets out of events; *known* are those of the service itself."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._known = frozenset(value for value in known if len(value) >= _SHORTEST)

    def scrub(self, event: dict[str, Any], secrets: Iterable[str] = ()) -> dict[str, Any]:
        """Return *event* without secrets; *secrets* are values known from the request."""
        values = {*self._known, *_secrets_of(event), *(value for value in secrets if len(value) >= _SHORTEST)}
        forms = sorted({form for value in values for form in _forms(value)}, key=len, reverse=True)
        scrubbed: dict[str, Any] = _scrub(event, tuple(forms))
        return scrubbed


def _secrets_of(node: object, under: bool = False) -> Iterator[str]:
    """Yield every text that stands under a secret's name."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _secrets_of(value, under or is_sensitive(str(key)))
    elif isinstance(node, list):
        for item in node:
            yield from _secrets_of(item, under)
    elif under and isinstance(node, str):
        text = node[1:-1] if node[:1] in ("'", '"') and node[-1:] == node[:1] else node
        if len(text) >= _SHORTEST and text not in (REDACTED, "[Filtered]"):
            yield text


def _forms(secret: str) -> Iterator[str]:
    """Yield the ways in which a secret may be written."""
    raw = secret.encode(errors="replace")
    plain = base64.b64encode(raw).decode().rstrip("=")
    yield from (secret, repr(secret)[1:-1], quote(secret), quote(secret, safe=""))
    yield from (quote_plus(secret), plain)
    yield base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _scrub(node: Any, secrets: tuple[str, ...], key: str = "") -> Any:
    if isinstance(node, dict):
        return {k: _scrub_named(str(k), v, secrets) for k, v in node.items()}
    if isinstance(node, list):
        return [_scrub(item, secrets, key) for item in node]
    if not isinstance(node, str):
        return node
    for secret in secrets:
        if secret in node:
            node = node.replace(secret, REDACTED)
    if key == "query_string":
        return redact_query(node)
    return node if key in _SOURCE else redact_text(node)


def _scrub_named(key: str, value: Any, secrets: tuple[str, ...]) -> Any:
    # Sentry's own structure has no key that reads like a secret's name.
    return REDACTED if is_sensitive(key) and value is not None else _scrub(value, secrets, key)
