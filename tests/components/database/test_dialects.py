"""What PostgreSQL is told of encryption; MariaDB is in test_mariadb.py."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from flask_prod import ConfigError
from flask_prod.components.database import DatabaseSettings
from flask_prod.components.database.dialects import connect_args
from flask_prod.components.database.engine import parse_url
from tests.pgtls import TlsFront
from tests.servers import HOST, Postgres

from .conftest import MODES, MakeShop, answers


def server_side(files: dict[str, str], name: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files[f"{name}.pem"], files[f"{name}.key"])
    return context


@pytest.mark.parametrize(
    ("server", "ca", "accepted"),
    [
        ("server", "ca.pem", MODES),
        ("elsewhere", "ca.pem", ("disable", "prefer", "require", "verify-ca")),
        ("server", "other-ca.pem", ("disable", "prefer")),
        ("", "ca.pem", ("disable", "prefer")),
    ],
)
def test_tls_modes_of_postgresql(
    make_shop: MakeShop,
    shared_postgres: Postgres,
    files: dict[str, str],
    server: str,
    ca: str,
    accepted: tuple[str],
) -> None:
    """Each mode accepts what its name says: a server without TLS, any certificate, one of ours, one by name."""
    context = server_side(files, server) if server else None
    with TlsFront(shared_postgres.port, context) as front:
        url = f"postgresql://postgres@{HOST}:{front.port}/postgres"
        found = []
        for mode in MODES:
            more = {} if mode == "disable" else {"DATABASE_TLS_CA": files[ca]}
            _, database = make_shop(DATABASE_URL=url, DATABASE_TLS=mode, **more)
            before = front.encrypted
            if answers(database):
                found.append(mode)
                if mode != "prefer":
                    assert (front.encrypted > before) is (mode != "disable")
            database.close()

    assert tuple(found) == accepted


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"DATABASE_TLS": "verify-ca"}, "DATABASE_TLS=verify-ca needs DATABASE_TLS_CA"),
        ({"DATABASE_TLS": "on"}, "DATABASE_TLS must be"),
        ({"DATABASE_TLS": "verify-full", "DATABASE_TLS_CA": "/nowhere.pem"}, "DATABASE_TLS_CA names /nowhere.pem"),
        ({"DATABASE_TLS_CA": __file__}, "set DATABASE_TLS"),
    ],
)
def test_mistakes_in_tls_are_said_at_start(make_shop: MakeShop, settings: dict[str, Any], said: str) -> None:
    """A wrong mode or a missing file is named before anybody connects."""
    with pytest.raises(ConfigError, match=said):
        make_shop(DATABASE_URL="postgresql://127.0.0.1:1/shop", **settings)


@pytest.mark.parametrize("driver", ["postgresql+pg8000", "mysql+mysqldb"])
def test_tls_of_a_driver_that_is_not_known(make_shop: MakeShop, driver: str) -> None:
    """A driver that would take no notice of DATABASE_TLS, and send all in the clear, is refused at start."""
    with pytest.raises(ConfigError, match="leave DATABASE_TLS out"):
        make_shop(DATABASE_URL=f"{driver}://127.0.0.1:1/shop", DATABASE_TLS="verify-full")


def test_address_wins_over_the_settings(files: dict[str, str]) -> None:
    """What the address says of encryption is kept."""
    settings = DatabaseSettings(tls="require")

    assert "sslmode" not in connect_args(parse_url("postgresql://db/shop?sslmode=disable"), settings, "shop")
    assert connect_args(parse_url("postgresql://db/shop"), settings, "shop")["sslmode"] == "require"


def test_certificate_of_the_client(files: dict[str, str], tmp_path: Path) -> None:
    """A certificate and its key go to the driver; one that is no certificate is named at start."""
    settings = DatabaseSettings(tls="require", tls_cert=files["server.pem"], tls_key=files["server.key"])
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("nonsense")

    given = connect_args(parse_url("postgresql://db/shop"), settings, "shop")

    assert (given["sslcert"], given["sslkey"]) == (files["server.pem"], files["server.key"])
    with pytest.raises(ConfigError, match="readable PEM"):
        connect_args(parse_url("mysql://db/shop"), DatabaseSettings(tls="require", tls_cert=str(wrong)), "shop")
