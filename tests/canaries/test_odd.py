"""Fifty odd secrets through settings, `config`, `check`, errors, health and metrics: none is shown."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from flask import Flask
from flask.cli import ScriptInfo
from hypothesis import example, given
from hypothesis import strategies as st

from flask_prod.cli import prod
from flask_prod.core.errors import ConfigError
from flask_prod.core.redaction import without_keys
from flask_prod.core.registry import BUILT_IN, load_component
from flask_prod.core.settings import Section, ServiceSettings, Source, key_names, read_settings, show
from flask_prod.core.values import Secret, SecretUrl
from flask_prod.server.sums import SurroundingsSettings
from flask_prod.server.vault import VaultSettings
from flask_prod.server.web_settings import ServerSettings
from tests.apps import MakeApp
from tests.canaries.odd import CORE, VALUES

SECRETS = ("SECRET_KEY", "SECRET_KEY_FALLBACKS", "HEALTH_TOKEN", "OPS_TOKEN", "METRICS_TOKEN", "OTLP_HEADERS")
EACH = 6
"""How many of the values every setting gets; the whole table takes half a minute."""


def sections() -> list[type[Section]]:
    """Return every section that there is."""
    rooms = [load_component(room).settings for room in BUILT_IN]
    return [ServiceSettings, *rooms, ServerSettings, SurroundingsSettings, VaultSettings]


def problems() -> Iterator[str]:
    """Yield what is said of every setting that gets secrets instead of what it takes, by value and by file."""
    turn, values = count(), list(VALUES.values())
    for kind in sections():
        for field in kind.__struct_fields__:
            for key in key_names(kind, field):
                for typed in (key, f"{key}_FILE"):
                    for _ in range(EACH):
                        value = values[next(turn) % len(values)]
                        try:
                            read_settings([kind], [Source("environment", {typed: value})])
                        except ConfigError as error:
                            yield str(error)


def test_fifty() -> None:
    """The table has fifty, and each has what is searched for."""
    assert len(VALUES) >= 50
    assert all(CORE in value or CORE in repr(value) for value in VALUES.values())


def test_wrong_settings() -> None:
    """A secret that got into any setting, or into the name of its file, is not in the error that says so."""
    said = list(problems())

    assert len(said) > 500
    assert not [text for text in said if CORE in text]


def commands(app: Flask) -> str:
    """Return all that the commands about settings print."""
    words = [(), ("--json",), *(("--explain", name) for name in SECRETS), ("--explain", "OPS_TOKEN", "--json")]
    results = [
        CliRunner().invoke(prod, ["config", *some], obj=ScriptInfo(create_app=lambda: app)) for some in words
    ]
    assert [result.exit_code for result in results] == [0] * len(words)
    return "".join(result.output for result in results)


def checks(app: Flask) -> str:
    """Return all that `flask prod check` says of an application, in each of its forms."""
    info = ScriptInfo(create_app=lambda: app)
    results = [CliRunner().invoke(prod, ["check", form], obj=info) for form in ("--table", "--json", "--sarif")]
    assert {result.exit_code for result in results} <= {0, 1}
    return "".join(result.output for result in results)


@pytest.mark.parametrize("name", VALUES)
def test_settings(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    """As a secret of the service and as a variable of somebody else's, a value is shown nowhere."""
    value = VALUES[name]
    monkeypatch.setenv("IGNORE_SETTINGS", name)
    if "\0" not in value:
        monkeypatch.setenv(name, value)
    given: dict[str, Any] = dict.fromkeys(SECRETS, value) | {"OTLP_HEADERS": "", "SECRET_KEY_FALLBACKS": [value]}
    app = make_app(only=("health", "metrics", "tracing"), TRACING_ENABLED=False, **given)
    client = app.test_client()
    pages = [client.get(path, headers={"Authorization": "Bearer wrong"}).text for path in ("/health", "/metrics")]
    state = app.extensions["prod"]
    shown = repr([state.settings.rows, state.service, state.settings.section(ServiceSettings)])

    assert CORE not in commands(app) + checks(app) + "".join(pages) + shown
    assert app.secret_key == value or name == "SECRET_KEY"


def test_very_short(make_app: MakeApp) -> None:
    """A secret of three characters is a fingerprint like any other."""
    given: dict[str, Any] = dict.fromkeys(SECRETS[2:5], "zqj")
    app = make_app(only=("health", "metrics", "tracing"), TRACING_ENABLED=False, **given)

    assert "zqj" not in commands(app)


ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.ASCII | re.IGNORECASE)


@given(st.text(min_size=1, max_size=80))
@example("secret").via("a word of the form itself")
@example("a0000:").via("a scheme for urlsplit, and no address")
@example("admin:hunter2").via("a password where an address belongs")
def test_secret_has_no_text(text: str) -> None:
    """However a secret is written, formatted or packed, nothing of it is there but eight digits of its hash."""
    mark = f"secret:{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    for secret in (Secret(text), SecretUrl(text)):
        if not isinstance(secret, SecretUrl) or not ADDRESS.match(text):
            # Compared as a whole: that `text` is not in it would be luck where the text is short or like the form.
            assert [f"{secret}", f"{secret!r}", str(secret), str([secret])] == [
                *[f"<{mark}>"] * 3,
                f"[<{mark}>]",
            ]
            assert [show(secret), show((secret,)), show({"key": secret})] == [mark, mark, f"key={mark}"]
        with pytest.raises(TypeError):
            json.dumps(secret)
        with pytest.raises(TypeError):
            msgspec.json.encode(secret)
        with pytest.raises(TypeError):
            pickle.dumps(secret)


@pytest.mark.parametrize(
    "text",
    [
        "LOG_LEVEL must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL, not 'LOUD'.",
        "TLS_CERT_FILE names /var/run/secrets/tls-2024/..2024_10_01_12.1/tls.crt, which cannot be read.",
        "jobs needs rq: pip install 'flask-prod[tracing-grpc]'",
        "ALLOWED_ORIGINS has 'https://shop-eu1.example.com:8443/path', which is no origin.",
        "RATE_LIMIT_POLICIES: checkout=10/10m; login=5/15m block 1h",
        "REDIS_URL cannot be understood; write redis+cluster://:password@host:6379,host:6379 instead.",
        "DATABASE_MAX_OPEN_CONNS of 2 processes x 4 threads + 20 is 28, more than 25.",
    ],
)
def test_sentences_stay_whole(text: str) -> None:
    """Sentences without a secret are not changed: paths, addresses, policies and names are no keys."""
    assert without_keys(text) == text
