"""What every test of the database room needs: an application with nothing but a database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
from flask import Flask

from flask_prod import ProdKit
from flask_prod.components.database import AppDatabase
from tests.apps import MakeApp
from tests.servers import Postgres

MakeShop: TypeAlias = Callable[..., tuple[Flask, AppDatabase]]


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
