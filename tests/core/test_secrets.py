"""What a service keeps secret, and what only has a name like that."""

from __future__ import annotations

import pytest
from flask import Flask

from flask_prod.core.secrets import secrets_of


def test_secrets_of_the_configuration() -> None:
    """Values of sensitive names are secrets, however long or plain they are."""
    app = Flask("shop")
    secrets = {"SECRET_KEY": "a" * 64, "DB_PASSWORD": "hunter", "TOKEN_LIVE": "tok_secret_1", "API_KEY": "k"}
    app.config.update(secrets)

    assert set(secrets_of(app)) == set(secrets.values())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("SESSION_COOKIE_NAME", "session"), ("JWT_ALGORITHM", "HS256"), ("JWT_HEADER_TYPE", "Bearer"),
        ("JWT_HEADER_NAME", "Authorization"), ("JWT_JSON_KEY", "access_token"), ("CSRF_FIELD_NAME", "csrf_token"),
        ("SECURITY_PASSWORD_HASH", "argon2"), ("SECURITY_TOKEN_AUTHENTICATION_KEY", "auth_token"),
    ],
)  # fmt: skip
def test_words_about_secrets(key: str, value: str) -> None:
    """What extensions say about cookies and tokens is no secret: it stands in every stack (`db.session`)."""
    app = Flask("shop")
    app.config[key] = value

    assert value not in set(secrets_of(app))
