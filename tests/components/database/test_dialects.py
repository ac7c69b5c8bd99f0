"""MariaDB beside PostgreSQL, and encrypted connections to both."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from flask_prod import ConfigError
from flask_prod.components.database import AppDatabase, DatabaseSettings
from flask_prod.components.database.dialects import connect_args
from flask_prod.components.database.engine import parse_url
from tests import debian
from tests.mariadb import MariaDB
from tests.pgtls import TlsFront
from tests.servers import HOST, Postgres

from .conftest import MakeShop

MODES = ("disable", "prefer", "require", "verify-ca", "verify-full")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Make certificates for 127.0.0.1 and for another name by one authority, and another authority."""
    folder = tmp_path_factory.mktemp("tls")
    ours, theirs = trustme.CA(), trustme.CA()
    ours.cert_pem.write_to_path(folder / "ca.pem")
    theirs.cert_pem.write_to_path(folder / "other-ca.pem")
    for name, host in (("server", HOST), ("elsewhere", "db.example")):
        made = ours.issue_cert(host)
        made.private_key_pem.write_to_path(folder / f"{name}.key")
        made.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
        (folder / f"{name}.key").chmod(0o644)  # MariaDB runs as another user
    return {path.name: str(path) for path in folder.iterdir()}


def server_side(files: dict[str, str], name: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files[f"{name}.pem"], files[f"{name}.key"])
    return context


def answers(database: AppDatabase) -> bool:
    """Tell whether a connection comes about."""
    try:
        with database.engine.connect() as connection:
            return connection.execute(text("SELECT 1")).scalar() == 1
    except OperationalError:
        return False


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


def test_address_wins_over_the_settings(files: dict[str, str]) -> None:
    """What the address says of encryption is kept."""
    settings = DatabaseSettings(tls="require")

    assert "sslmode" not in connect_args(parse_url("postgresql://db/shop?sslmode=disable"), settings, "shop")
    assert connect_args(parse_url("postgresql://db/shop"), settings, "shop")["sslmode"] == "require"


@pytest.fixture(scope="module")
def mariadb(pytestconfig: pytest.Config, files: dict[str, str]) -> Iterator[MariaDB]:
    """Run one MariaDB with a certificate for this module."""
    tls = {"cert": files["server.pem"], "key": files["server.key"], "ca": files["ca.pem"]}
    try:
        server = MariaDB(debian.kept(pytestconfig), tls)
    except debian.Missing as error:
        pytest.skip(str(error))
    with server:
        yield server


def test_mariadb_is_set_up(make_shop: MakeShop, mariadb: MariaDB) -> None:
    """`mariadb://` is enough: driver, pool, time limit, and a session that stores."""
    app, database = make_shop(DATABASE_URL=mariadb.url(), DATABASE_STATEMENT_TIMEOUT="1500ms")

    with app.app_context():
        session = database.session
        limit = session.execute(text("SELECT @@max_statement_time")).scalar()
        session.execute(text("CREATE TABLE IF NOT EXISTS t (n INTEGER)"))
        session.execute(text("INSERT INTO t VALUES (7)"))
        session.commit()
        stored = session.execute(text("SELECT n FROM t")).scalar()

    assert float(str(limit)) == 1.5
    assert stored == 7
    assert database.ping() is None


def test_slow_statement_on_mariadb_is_504(make_shop: MakeShop, mariadb: MariaDB) -> None:
    """Its own error for a statement past its time is no outage, and the connection is good for the next."""
    app, database = make_shop(DATABASE_URL=mariadb.url(), DATABASE_STATEMENT_TIMEOUT="200ms")

    @app.get("/sleep/<int:seconds>")
    def sleep(seconds: int) -> str:
        statement = text("SELECT count(*) FROM seq_1_to_1000000 a, seq_1_to_100000 b" if seconds else "SELECT 1")
        database.session.execute(statement)
        return "slept"

    client = app.test_client()
    began = time.monotonic()
    answer = client.get("/sleep/5")

    assert answer.status_code == 504
    assert time.monotonic() - began < 2
    assert client.get("/sleep/0").status_code == 200


def test_connection_that_mariadb_ended(make_shop: MakeShop, mariadb: MariaDB) -> None:
    """A connection that the server ended fails no request; a server that is not there is answered 503."""
    app, database = make_shop(DATABASE_URL=mariadb.url())
    away, nowhere = make_shop(DATABASE_URL=f"mariadb://shop@{HOST}:1/shop")
    for one, room in ((app, database), (away, nowhere)):

        @one.get("/")
        def index(room: AppDatabase = room) -> str:
            return str(room.session.execute(text("SELECT connection_id()")).scalar())

    client = app.test_client()
    first = client.get("/").text
    mariadb.execute(f"KILL {first}")

    assert client.get("/").text not in ("", first)
    assert away.test_client().get("/").status_code == 503


@pytest.mark.parametrize(
    ("ca", "accepted"), [("ca.pem", MODES), ("other-ca.pem", ("disable", "prefer", "require"))]
)
def test_tls_modes_of_mariadb(
    make_shop: MakeShop, mariadb: MariaDB, files: dict[str, str], ca: str, accepted: tuple[str]
) -> None:
    """The same modes, by PyMySQL: all but `disable` are encrypted here, and the verifying ones verify."""
    found = []
    for mode in MODES:
        more = {} if mode == "disable" else {"DATABASE_TLS_CA": files[ca]}
        _, database = make_shop(DATABASE_URL=mariadb.url(), DATABASE_TLS=mode, **more)
        if answers(database):
            found.append(mode)
            with database.engine.connect() as connection:
                cipher = connection.execute(text("SHOW STATUS LIKE 'Ssl_cipher'")).one()[1]
            assert bool(cipher) is (mode != "disable")

    assert tuple(found) == accepted


def test_certificate_of_the_client(files: dict[str, str], tmp_path: Path) -> None:
    """A certificate and its key go to the driver; one that is no certificate is named at start."""
    settings = DatabaseSettings(tls="require", tls_cert=files["server.pem"], tls_key=files["server.key"])
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("nonsense")

    given = connect_args(parse_url("postgresql://db/shop"), settings, "shop")

    assert (given["sslcert"], given["sslkey"]) == (files["server.pem"], files["server.key"])
    with pytest.raises(ConfigError, match="readable PEM"):
        connect_args(parse_url("mysql://db/shop"), DatabaseSettings(tls="require", tls_cert=str(wrong)), "shop")
