"""What every test of the database room needs: an application with nothing but a database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
import trustme
from flask import Flask
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from flask_prod import ProdKit
from flask_prod.components.database import AppDatabase
from tests.apps import MakeApp
from tests.servers import HOST, Postgres

MakeShop: TypeAlias = Callable[..., tuple[Flask, AppDatabase]]
MODES = ("disable", "prefer", "require", "verify-ca", "verify-full")


@pytest.fixture(scope="session", autouse=True)
def server_first(shared_postgres: Postgres) -> None:
    """Start the shared server before a test counts its processes: fixtures here ask for it while they run."""


@pytest.fixture
def make_shop(make_app: MakeApp) -> MakeShop:
    """Give a factory of applications with a database, which return its handle too."""

    def make(kit: ProdKit | None = None, **config: Any) -> tuple[Flask, AppDatabase]:
        app = make_app(kit=kit or ProdKit(only=["database"]), **config)
        return app, app.extensions["prod"].contributions["database"].handle

    return make


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


def answers(database: AppDatabase) -> bool:
    """Tell whether a connection comes about."""
    try:
        with database.engine.connect() as connection:
            return connection.execute(text("SELECT 1")).scalar() == 1
    except OperationalError:
        return False
