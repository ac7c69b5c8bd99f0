"""Secrets from Vault: read once at the start, in their place among the sources, renewed, and never shown."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from flask_prod.core.errors import ConfigError
from flask_prod.core.sources import Finder, find_sources
from flask_prod.core.values import Secret
from flask_prod.server import vault as room
from flask_prod.server.vault import Vault, VaultSettings
from tests.apps import MakeApp
from tests.vault import HOST
from tests.vault import Vault as Server

CANARY = "canary-7f3a9c2e"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Run a Vault with two paths."""
    monkeypatch.chdir(tmp_path)
    held: dict[str, dict[str, Any]] = {
        "shop": {"SECRET_KEY": f"{CANARY}-key", "health_token": f"{CANARY}-token"},
        "shared": {"PORT": 9001},
    }
    with Server(secrets=held) as running:
        yield running


def by_role(server: Server, **more: Any) -> dict[str, Any]:
    """Return the settings that sign in by AppRole."""
    role_id, secret_id = server.role
    return {"VAULT_ADDR": server.url, "VAULT_PATH": "shop, shared", "VAULT_ROLE_ID": role_id,
            "VAULT_SECRET_ID": secret_id, **more}  # fmt: skip


def values(config: dict[str, Any]) -> dict[str, Any]:
    """Return what Vault gives."""
    sources = find_sources({"ENVIRONMENT": "test", **config}, Path("app"), {})
    return dict(next(source.values for source in sources if source.name == "vault"))


def test_application(server: Server, make_app: MakeApp) -> None:
    """What lies in Vault are settings like any other, with their origin, and below secret files in order."""
    app = make_app(only=("health",), **by_role(server), HEALTH_TOKEN="mine")
    rows = {row.key: row for row in app.extensions["prod"].settings.rows}

    assert app.secret_key == f"{CANARY}-key"
    assert (rows["SECRET_KEY"].origin, rows["PORT"].origin, rows["PORT"].value) == ("vault", "vault", 9001)
    assert rows["HEALTH_TOKEN"].origin == "app.config"
    assert CANARY not in repr(rows)


def test_place_among_the_sources(server: Server, tmp_path: Path) -> None:
    """Secret files win over Vault, Vault over the profile, whose variables it fills in."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "test.toml").write_text(
        'VAULT_PATH = "shop"\nPORT = 1\nSECRET_KEY = "profile"\nREDIS_URL = "redis://:${HEALTH_TOKEN}@cache/0"\n'
    )
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "HEALTH_TOKEN").write_text("file")
    config = by_role(server, SECRETS_DIR=str(tmp_path / "secrets"), ENVIRONMENT="test")
    config.pop("VAULT_PATH")
    sources = find_sources(config, Path("app"), {})

    assert [source.name for source in sources] == [
        "app.config", "environment", "secret file", "vault", "config/test.toml", "profile test of flask-prod"
    ]  # fmt: skip
    assert sources[4].values["REDIS_URL"] == "redis://:file@cache/0"


def test_nobody_is_asked(server: Server) -> None:
    """Without VAULT_PATH nobody is asked, whatever the shell of a developer has; nor by who needs no secret."""
    config = by_role(server, ENVIRONMENT="test")
    find_sources(config, Path("app"), {}, remote=None)
    config.pop("VAULT_PATH")
    find_sources(config, Path("app"), {})

    assert server.asked == []


@pytest.mark.parametrize("way", ["token", "token_file", "approle", "kubernetes"])
def test_ways_to_sign_in(server: Server, tmp_path: Path, way: str) -> None:
    """A token, the file of one, an AppRole and a pod's service account are understood."""
    (tmp_path / "token").write_text(server.token() + "\n")
    (tmp_path / "jwt").write_text(server.jwt)
    config = {
        "token": {"VAULT_TOKEN": server.token()},
        "token_file": {"VAULT_TOKEN_FILE": str(tmp_path / "token")},
        "approle": {},
        "kubernetes": {"VAULT_KUBERNETES_ROLE": "shop", "VAULT_KUBERNETES_JWT": str(tmp_path / "jwt")},
    }[way]
    base = by_role(server) if way == "approle" else {"VAULT_ADDR": server.url, "VAULT_PATH": ["shop", "shared"]}

    assert values({**base, **config})["PORT"] == 9001


def test_mount_and_namespace(server: Server) -> None:
    """Engine and namespace can have other names."""
    server.mount, server.namespace = "kv/team", "shops"

    assert values(by_role(server, VAULT_MOUNT="kv/team", VAULT_NAMESPACE="shops"))["PORT"] == 9001


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"VAULT_SECRET_ID": CANARY}, "refuses the sign-in"),
        ({"VAULT_ROLE_ID": "", "VAULT_SECRET_ID": "", "VAULT_TOKEN": CANARY}, "refuses the token"),
        ({"VAULT_PATH": "gone"}, "has nothing at secret/gone"),
        ({"VAULT_ADDR": ""}, "VAULT_PATH needs VAULT_ADDR"),
        ({"VAULT_ADDR": "vault:8200"}, "VAULT_ADDR must begin with"),
        ({"VAULT_CACERT": "/gone/ca.pem"}, "VAULT_CACERT names /gone/ca.pem, which is no file"),
        ({"VAULT_SECRET_ID": ""}, "belong together"),
        ({"VAULT_ROLE_ID": "", "VAULT_SECRET_ID": ""}, "VAULT_PATH needs VAULT_TOKEN"),
        ({"VAULT_ADDR": f"http://me:{CANARY}@127.0.0.1:9"}, "does not answer as it should: ConnectionError"),
    ],
)
def test_refused(server: Server, change: dict[str, Any], sentence: str) -> None:
    """Whatever stands in the way is one sentence that names the setting, and no secret."""
    with pytest.raises(ConfigError) as caught:
        values(by_role(server, **change))

    assert sentence in str(caught.value)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("mode", ["hang", "sealed", "nonsense"])
def test_sick_server(server: Server, mode: str) -> None:
    """A server that hangs, is sealed or answers nonsense ends the start in time, and is not quoted."""
    server.mode = mode
    began = time.monotonic()
    with pytest.raises(ConfigError, match=r"Vault at http://127\.0\.0\.1") as caught:
        values(by_role(server, VAULT_TIMEOUT="300ms"))
    server.mode = ""

    assert time.monotonic() - began < 3
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, Path, Path]:
    """Make an authority with its file, and the file of another one."""
    ours, folder = trustme.CA(), tmp_path_factory.mktemp("authorities")
    ours.cert_pem.write_to_path(str(folder / "ours.pem"))
    trustme.CA().cert_pem.write_to_path(str(folder / "theirs.pem"))
    return ours, folder / "ours.pem", folder / "theirs.pem"


def test_tls(authorities: tuple[trustme.CA, Path, Path], tmp_path: Path) -> None:
    """Over https Vault must prove by VAULT_CACERT who it is, before any secret is sent; names must fit as well."""
    authority, ours, theirs = authorities
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    (tmp_path / "nonsense.pem").write_text("nonsense")

    with Server(secrets={"shop": {"PORT": 9001}}, context=context) as server:
        config = by_role(server, VAULT_PATH="shop")
        assert values({**config, "VAULT_CACERT": str(ours)})["PORT"] == 9001
        asked = len(server.asked)
        for wrong in ("", str(theirs), str(tmp_path / "nonsense.pem")):
            with pytest.raises(ConfigError, match=r"https://127\.0\.0\.1:\d+.* (prove who it is|OSError)"):
                values({**config, "VAULT_CACERT": wrong})
        with pytest.raises(ConfigError, match="cannot prove who it is: VAULT_CACERT"):
            values({**config, "VAULT_CACERT": str(ours), "VAULT_ADDR": server.url.replace(HOST, "localhost")})
        assert len(server.asked) == asked


def test_token_is_renewed(server: Server, monkeypatch: pytest.MonkeyPatch, wait_for: Callable[..., Any]) -> None:
    """A token is renewed at half of its life, and one that ended all the same is replaced."""
    monkeypatch.setattr(room, "SHORTEST", 0.05)
    server.ttl = 1
    role_id, secret_id = server.role
    vault = Vault(VaultSettings(
        path=("shop",), addr=server.url, role_id=Secret(role_id), secret_id=Secret(secret_id), refresh=0
    ))  # fmt: skip
    vault.read()

    def renewed() -> bool:
        vault.tend(lambda values: None)
        return "POST auth/token/renew-self" in server.asked

    wait_for(renewed, 10, "the renewal")
    server.tokens.clear()
    assert vault.read()["SECRET_KEY"].startswith(CANARY)
    assert server.asked.count("POST auth/approle/login") >= 2


def test_change_is_seen(server: Server, wait_for: Callable[..., Any]) -> None:
    """A secret that changes in Vault changes the stamp, as a file does; while Vault is away all stays as it is."""
    finder = Finder({"ENVIRONMENT": "test", **by_role(server, VAULT_REFRESH="50ms")}, Path("app"))
    finder.find()
    stamp = finder.look()

    def changed() -> bool:
        finder.tend()
        return finder.look() != stamp

    assert not changed()
    server.secrets["shop"]["SECRET_KEY"] = "another"
    wait_for(changed, 10, "the change")
    found = next(source for source in finder.find() if source.name == "vault")
    assert found.values["SECRET_KEY"] == "another"


def test_outage_is_told_once(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wait_for: Callable[..., Any]
) -> None:
    """While Vault is away the secrets stay as they were, with one line when it goes and one when it is back."""
    monkeypatch.setattr(room, "SHORTEST", 0.02)
    role_id, secret_id = server.role
    vault = Vault(VaultSettings(
        path=("shop",), addr=server.url, role_id=Secret(role_id), secret_id=Secret(secret_id), refresh=0.02
    ))  # fmt: skip
    vault.read()
    with caplog.at_level(logging.WARNING):
        server.mode = "sealed"
        for message in ("Secrets are as they were", "Vault answers again"):

            def told(message: str = message) -> bool:
                vault.tend(lambda values: None)
                return message in caplog.text

            wait_for(told, 10, message)
            server.mode = ""

    assert len(caplog.records) == 2
    assert CANARY not in caplog.text
