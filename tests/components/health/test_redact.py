"""A detail is one bounded line without credentials."""

from __future__ import annotations

import pytest

from flask_prod.components.health.redact import LONGEST, Redactor
from flask_prod.core.redaction import REDACTED
from flask_prod.core.values import Secret, SecretUrl


@pytest.mark.parametrize(
    "text",
    [
        "cannot connect to postgresql://shop:s3cr3t-word@db:5432/shop",
        "redis://:s3cr3t-word@cache:6379 refused",
        'could not parse "host=db password=s3cr3t-word user=shop"',
        "{'api_key': 's3cr3t-word', 'host': 'db'}",
        "401 for Authorization: Bearer s3cr3t-word",
        "DB_PASSWORD='s3cr3t-word'",
        "?access_token=s3cr3t-word&x=1",
    ],
)
def test_looks_like_a_secret(text: str) -> None:
    """What looks like a credential is starred out, whoever configured it."""
    cleaned = Redactor().clean(text)

    assert "s3cr3t-word" not in cleaned
    assert REDACTED in cleaned


def test_known_secrets() -> None:
    """The values of this application's secrets are found in any spelling, wherever they stand."""
    redactor = Redactor([Secret("pa/ss word"), SecretUrl("redis://:p%40ss-1@cache"), (Secret("in-a-tuple"),)])

    assert redactor.clean("pa/ss word pa%2Fss%20word p%40ss-1 p@ss-1 in-a-tuple") == " ".join([REDACTED] * 5)


def test_one_bounded_line() -> None:
    """Line breaks and escapes are taken out, and a long text is cut."""
    cleaned = Redactor().clean("a\r\nb\x1b[31mc" + "x" * 5000)

    assert cleaned.startswith("a b [31mc")
    assert len(cleaned) == LONGEST


def test_plain_text_stays() -> None:
    """An ordinary message is left as it is."""
    text = "Connection to 127.0.0.1:6379 refused (111)"

    assert Redactor([Secret(""), Secret("a")]).clean(text) == text
