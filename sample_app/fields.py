"""Reading what people send: JSON bodies, forms and query strings, with all that is wrong told field by field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from flask import abort, request
from werkzeug.exceptions import UnprocessableEntity

_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s.]+(\.[^@\s.]+)+", re.ASCII)
"""Only the shape: whether an address exists is known once a mail arrives there."""


class Invalid(UnprocessableEntity):
    """Some fields are wrong; `errors` has one sentence for each."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        self.errors = dict(errors)
        self.problem = {"errors": self.errors}  # a member of the problem+json that the kit draws
        super().__init__(" ".join(f"{name}: {sentence}" for name, sentence in errors.items()))


class Fields:
    """The fields of one request; each reader notes what is wrong, `check` raises when anything was."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self.errors: dict[str, str] = {}

    def text(self, name: str, *, least: int = 0, most: int = 200) -> str:
        """Return a text of *least* to *most* characters, without the blanks around it."""
        value = self._values.get(name, "")
        text = value.strip() if isinstance(value, str) else ""
        if not isinstance(value, str):
            self.errors[name] = "This must be text."
        elif "\x00" in text:
            self.errors[name] = "This must not contain a zero character."
        elif not text and least:
            self.errors[name] = "Please fill this in."
        elif not least <= len(text) <= most:
            self.errors[name] = f"Please use {least} to {most} characters."
        return text

    def name_or_id(self, name: str) -> str:
        """Return what a product is called by: its slug, or its id as text or number."""
        value = self._values.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return self.text(name, least=1, most=80)

    def password(self, name: str, *, least: int = 1) -> str:
        """Return a password as typed; 200 characters at most, since hashing costs by length."""
        value = self._values.get(name, "")
        if not isinstance(value, str) or not value:
            self.errors[name] = "Please enter a password."
        elif not least <= len(value) <= 200:
            self.errors[name] = f"Please use {least} to 200 characters."
        return value if isinstance(value, str) else ""

    def email(self, name: str) -> str:
        """Return an e-mail address in lower case."""
        text = self.text(name, least=1, most=254).lower()
        if name not in self.errors and not _EMAIL.fullmatch(text):
            self.errors[name] = "This does not look like an e-mail address."
        return text

    def number(self, name: str, *, least: int, most: int, default: int | None = None) -> int:
        """Return a whole number from *least* to *most*; *default* when it is not there at all."""
        value = self._values.get(name, default)
        if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 12:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.errors[name] = f"This must be a whole number from {least} to {most}."
            return least
        return value

    def check(self) -> None:
        """Raise Invalid, an answer with status 422, when any field was wrong."""
        if self.errors:
            raise Invalid(self.errors)


def json_fields() -> Fields:
    """Return the fields of the JSON body; 400 for malformed JSON or anything but an object, 415 for no JSON."""
    body = request.get_json()
    if not isinstance(body, dict):
        abort(400, 'The body must be a JSON object, such as {"quantity": 1}.')
    return Fields(body)


def form_fields() -> Fields:
    """Return the fields of the submitted form."""
    return Fields(request.form)


def query_fields() -> Fields:
    """Return the fields of the query string."""
    return Fields(request.args)
