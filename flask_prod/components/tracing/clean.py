"""What may stand in a span: text without secrets, bounded, and valid in protobuf."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Collection, Mapping
from typing import Any

from flask_prod.core.record import RequestRecord
from flask_prod.core.redaction import (
    forms_of,
    hide,
    is_sensitive,
    redact_named,
    redact_text,
    secrets_held,
    secrets_sent,
    shorten,
)

LONGEST = 2048
"""Characters of an attribute; a queue of 1,000 spans must stay small."""

_LONGEST_STACK = 8192
_PARAMETERS = re.compile(r"\[parameters: .*?\](?=\n|\Z)", re.DOTALL)

Attribute = str | bool | int | float
Secrets = Callable[[], Collection[str]]


def plain(text: str, longest: int = LONGEST) -> str:
    """Return *text* cut to length and without half surrogate pairs, which protobuf refuses with all its batch."""
    text = shorten(text, longest)
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def attribute(name: str, value: object) -> Attribute:
    """Return what a user gave as an attribute's value, as it may be shown."""
    if isinstance(value, bool | int | float) and not is_sensitive(name):
        return value
    shown = redact_named(name, value)
    return plain(shown if isinstance(shown, str) else str(shown))


def error_type(error: BaseException) -> str:
    """Return an exception's class as OpenTelemetry names it: `ValueError`, `shop.cart.Empty`."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


class Cleaner:
    """Takes out of a text what the service keeps secret, and what the request sent that is."""

    def __init__(self, own: Secrets) -> None:
        self._own = own

    def forms(self, record: RequestRecord | None, error: BaseException | None = None) -> tuple[str, ...]:
        """Return what must not be seen, in all ways it may be written."""
        found = set(self._own())
        if record is not None:
            found |= secrets_sent(record.environ)
        if error is not None:
            found.update(secrets_held(error))
        return forms_of(found)

    def exception(self, error: BaseException, record: RequestRecord | None) -> dict[str, str]:
        """Return the attributes of an exception's event: its class, message and stack, no variables."""
        forms = self.forms(record, error)
        stack = "".join(traceback.format_exception(error, limit=-30))
        return {
            "exception.type": error_type(error),
            "exception.message": self.text(_without_parameters(_message(error)), forms),
            "exception.stacktrace": self.text(_without_parameters(stack), forms, _LONGEST_STACK),
        }

    def text(self, text: str, forms: Collection[str] = (), longest: int = LONGEST) -> str:
        """Return *text* as it may be shown."""
        return plain(redact_text(hide(text[: 4 * longest], forms)), longest)

    def attributes(self, attributes: Mapping[str, Any] | None, forms: Collection[str]) -> dict[str, Any]:
        """Return attributes that somebody else set, as they may be shown."""
        return {name: self._value(name, value, forms) for name, value in (attributes or {}).items()}

    def _value(self, name: str, value: Any, forms: Collection[str]) -> Any:
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, str) and not is_sensitive(name):
            return self.text(value, forms, LONGEST if "stacktrace" not in name else _LONGEST_STACK)
        if isinstance(value, list | tuple) and not is_sensitive(name):
            return tuple(self._value(name, item, forms) for item in value[:100])
        return attribute(name, value if isinstance(value, str) else str(value))


def _without_parameters(text: str) -> str:
    """Leave out what SQLAlchemy appends to an error: the values of the statement that failed."""
    return _PARAMETERS.sub("[parameters: [redacted]]", text) if "[parameters: " in text else text


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return f"<{type(error).__name__}>"
