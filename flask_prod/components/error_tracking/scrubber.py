"""Secrets out of error reports, by name and by value.

An event is scrubbed as it leaves, when everything in it is plain data: what stands under a secret's name goes,
and so does the same value wherever else it turns up: in the exception's text, another variable, a URL.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flask_prod.core.redaction import (
    REDACTED,
    forms_of,
    hide,
    is_sensitive,
    redact_query,
    redact_text,
    secrets_under,
)

_SOURCE = frozenset({"context_line", "pre_context", "post_context"})
"""Lines of code say `password = form["password"]`; only a secret's own value is taken out of them."""


_LEAST_CARD = 10**12
"""A whole number below has too few digits to be that of a card."""

_CONSTANT = frozenset({"modules", "sdk", "platform", "type", "event_id", "release", "environment"})
"""Parts of an event that the SDK writes itself, the same for every request: names and versions."""


class Scrubber:
    """Takes secrets out of events; *known* are those of the service itself."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._known = frozenset(known)
        self._known_forms = forms_of(self._known)

    def scrub(self, event: dict[str, Any], secrets: Iterable[str] = ()) -> dict[str, Any]:
        """Return *event* without secrets; *secrets* are values known from the request."""
        told = {name: part for name, part in event.items() if name not in _CONSTANT}
        found = {*secrets, *secrets_under(told)}
        forms = forms_of(self._known | found) if found - self._known else self._known_forms
        return {**event, **_scrub(told, forms)}


def _scrub(node: Any, forms: tuple[str, ...], key: str = "") -> Any:
    if isinstance(node, dict):
        return {k: _scrub_named(str(k), v, forms) for k, v in node.items()}
    if isinstance(node, list):
        return [_scrub(item, forms, key) for item in node]
    if type(node) is int and node >= _LEAST_CARD:
        return REDACTED if redact_text(str(node)) == REDACTED else node
    if not isinstance(node, str):
        return node
    text = hide(node, forms)
    if key == "query_string":
        return redact_query(text)
    return text if key in _SOURCE else redact_text(text)


def _scrub_named(key: str, value: Any, forms: tuple[str, ...]) -> Any:
    # Sentry's own structure has no key that reads like a secret's name.
    return REDACTED if is_sensitive(key) and value is not None else _scrub(value, forms, key)
