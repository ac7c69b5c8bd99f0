"""What the tests of the jobs room share: an application with a Redis, and its jobs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask

from flask_prod.components.jobs.engine import Engine
from tests.apps import MakeApp

from .work import prod


@pytest.fixture
def app(make_app: MakeApp, redis_url: str) -> Iterator[Flask]:
    """Give an application with jobs, in its context."""
    app = make_app(kit=prod, REDIS_URL=redis_url)
    with app.app_context():
        yield app


@pytest.fixture
def engine(app: Flask) -> Engine:
    """Give the jobs of that application."""
    engine: Engine = app.extensions["prod"].contributions["jobs"].handle
    return engine
