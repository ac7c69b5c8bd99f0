"""What may be shown, and what never."""

from __future__ import annotations

import base64
import time

import pytest
from flask import Flask, request
from hypothesis import given
from hypothesis import strategies as st

from flask_prod.core.redaction import (
    REDACTED,
    forms_of,
    hide,
    is_sensitive,
    redact,
    redact_query,
    redact_text,
    secrets_sent,
    shorten,
    shown_path,
)


@pytest.mark.parametrize(
    "name",
    ["password", "user_password", "newPassword", "API-Key", "x-api-key", "Authorization", "Set-Cookie",
     "card_number", "cardNumber", "cvv", "access_token", "csrf_token", "client_secret", "SENTRY_DSN",
     "session", "pin"],
)  # fmt: skip
def test_sensitive_names(name: str) -> None:
    """Names of secrets are known however they are spelt."""
    assert is_sensitive(name)


@pytest.mark.parametrize(
    "name", ["author", "key", "cache_key", "name", "opinion", "discard", "postcard", "status"]
)
def test_harmless_names(name: str) -> None:
    """Names that only resemble those of secrets are shown."""
    assert not is_sensitive(name)


@pytest.mark.parametrize(
    "text",
    ["password=hunter2!", "login with 'password': 'hunter2!' failed", '{"api_key":"hunter2!"}',
     "Authorization: Bearer hunter2!abc", "redis://:hunter2!@host:6379/0", "postgresql://me:hunter2!@db/shop",
     "Cookie: a=1; session=hunter2!", "/reset?reset_token=hunter2!&page=2", "client-secret: hunter2!"],
)  # fmt: skip
def test_secrets_in_text(text: str) -> None:
    """A named secret does not survive in free text."""
    assert "hunter2" not in redact_text(text)


def test_cards() -> None:
    """A card number is starred, another long number is not."""
    assert redact_text("card 4242 4242 4242 4242 refused") == f"card {REDACTED} refused"
    assert redact_text("order 1234567890123") == "order 1234567890123"


def test_nested_values() -> None:
    """Secrets are found at any depth, and what surrounds them stays."""
    shown = redact({"user": {"name": "Ada", "password": "x", "cards": [{"cvv": 123}]}, "n": 1})

    assert shown == {"user": {"name": "Ada", "password": REDACTED, "cards": [{"cvv": REDACTED}]}, "n": 1}


def test_endless_value() -> None:
    """A value that contains itself comes to an end."""
    circle: list[object] = []
    circle.append(circle)

    assert "..." in str(redact(circle))


def test_query() -> None:
    """Of a query string only the secret values go."""
    assert redact_query("page=2&access_token=abc&q=") == f"page=2&access_token={REDACTED}&q="


def test_shorten() -> None:
    """Long text is cut and says so."""
    assert shorten("a" * 20, 10) == "a" * 10 + "...[10 more]"


@given(st.text(max_size=300))
def test_any_text(text: str) -> None:
    """No text makes it fail, and text without a secret's name keeps its length or shrinks."""
    assert isinstance(redact_text(text), str)


@pytest.mark.alone
@pytest.mark.parametrize(
    "unit", ["a", "token", "://", "eyJaaaaaaaa.", "4 ", "password=", "card_n", "-", "Cookie:"]
)
def test_hostile_length(unit: str) -> None:
    """Text made to be slow for expressions takes no longer than other text."""
    text = unit * (8192 // len(unit))
    began = time.perf_counter()
    redact_text(text)

    assert time.perf_counter() - began < 0.5


def test_path_without_the_token_in_it() -> None:
    """A path whose route names a secret is shown as its route; every other one as it came."""
    assert shown_path("/reset/abcdefgh", "/reset/<token>") == "/reset/<token>"
    assert shown_path("/orders/7", "/orders/<int:order>") == "/orders/7"
    assert shown_path("/nowhere/password=abcdefgh", None) == "/nowhere/password=[redacted]"


def test_words_are_no_secrets() -> None:
    """A word for a secret that stands under a secret's name (`cookie = "session"`) leaves other text readable."""
    forms = forms_of(["session", "access_token", "Set-Cookie", "hunter-three", "secret99"])

    assert hide("db.session of hunter-three", forms) == f"db.session of {REDACTED}"
    assert hide("secret99", forms) == REDACTED


def test_secrets_that_a_request_sent() -> None:
    """What was parsed of path and body, and a Basic password, is known as secret; a body is not read for that."""
    app = Flask("shop")
    app.add_url_rule("/reset/<token>", "reset", lambda token: "", methods=["POST"])
    basic = {"Authorization": "Basic " + base64.b64encode(b"anna:from-basic").decode()}

    form = {"password": "from-form"}
    with app.test_request_context("/reset/from-path", method="POST", data=form, headers=basic):
        assert {"from-path", "from-basic"} <= secrets_sent(request.environ)
        assert "from-form" not in secrets_sent(request.environ)
        assert request.form
        assert "from-form" in secrets_sent(request.environ)
    with app.test_request_context("/", method="POST", json=[{"user": {"api_key": "from-json"}}]):
        assert request.json
        assert "from-json" in secrets_sent(request.environ)
