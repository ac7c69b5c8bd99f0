"""Two keys live at once: what the old one signed is accepted while the new one signs, and nobody is signed out."""

from __future__ import annotations

import pytest
from flask import Flask, session
from flask.testing import FlaskClient

from tests.apps import MakeApp

OLD, NEW = "old-" + "0" * 40, "new-" + "1" * 40


def client_of(app: Flask) -> FlaskClient:
    """Give an application a page that signs in and one that tells who is."""

    @app.get("/in")
    def sign_in() -> str:
        session["user"] = "anna"
        return "in"

    @app.get("/who")
    def who() -> str:
        return str(session.get("user"))

    return app.test_client()


def moved(cookie_of: FlaskClient, to: FlaskClient) -> str:
    """Return who the session cookie of one client stands for at another's application."""
    cookie = cookie_of.get_cookie("session")
    assert cookie is not None
    to.set_cookie("session", cookie.value)
    return to.get("/who").text


def test_session_cookies(make_app: MakeApp) -> None:
    """A session of the old key lives on by SECRET_KEY_FALLBACKS, in both directions, and ends without it."""
    before = client_of(make_app(only=(), SECRET_KEY=OLD))
    before.get("/in")

    first = client_of(make_app(only=(), SECRET_KEY=OLD, SECRET_KEY_FALLBACKS=[NEW]))
    second = client_of(make_app(only=(), SECRET_KEY=NEW, SECRET_KEY_FALLBACKS=OLD))
    third = client_of(make_app(only=(), SECRET_KEY=NEW))

    assert moved(before, second) == "anna"
    second.get("/in")
    assert moved(second, first) == "anna"
    assert moved(second, third) == "anna"
    assert moved(before, third) == "None"


def test_fallbacks_from_the_environment(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """SECRET_KEY_FALLBACKS of the environment reach Flask, and are shown as fingerprints only."""
    monkeypatch.setenv("SECRET_KEY_FALLBACKS", f"{OLD},{NEW}")
    app = make_app(only=(), SECRET_KEY="x" * 32)
    rows = {row.key: row for row in app.extensions["prod"].settings.rows}

    assert app.config["SECRET_KEY_FALLBACKS"] == [OLD, NEW]
    assert rows["SECRET_KEY_FALLBACKS"].shown.count("secret:") == 2
