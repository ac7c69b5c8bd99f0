"""What may be shown of an exception's text: one bounded line without credentials."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, unquote, urlsplit

from flask_prod.core.redaction import REDACTED, redact_text
from flask_prod.core.values import Secret, SecretUrl

LONGEST = 200
"""Characters of a detail; a driver may quote a whole statement."""

_READ = 10 * LONGEST
_SHORTEST = 4
"""A secret shorter than this is not searched for: taking out every `a` would hide the message."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class Redactor:
    """Takes known secrets, and whatever looks like one, out of a text."""

    def __init__(self, values: Iterable[object] = ()) -> None:
        found = {text for value in values for text in _texts(value) if len(text) >= _SHORTEST}
        # The longest first: an address must not be left with its tail when its password was starred before it.
        self._secrets = sorted(found, key=len, reverse=True)

    def clean(self, text: str) -> str:
        """Return *text* as one line of at most `LONGEST` characters without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, REDACTED)
        text = _CONTROL.sub(" ", redact_text(text[:_READ])).strip()
        return text if len(text) <= LONGEST else text[: LONGEST - 1] + "\u2026"


def _texts(value: object) -> Iterator[str]:
    """Yield every spelling of the secrets in a setting."""
    if isinstance(value, SecretUrl):
        yield from _spellings(value.reveal())
        yield from _spellings(_password(value.reveal()))
    elif isinstance(value, Secret):
        yield from _spellings(value.reveal())
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _texts(item)


def _spellings(text: str) -> tuple[str, ...]:
    return (text, unquote(text), quote(text, safe=""))


def _password(address: str) -> str:
    try:
        return urlsplit(address).password or ""
    except ValueError:
        return ""
