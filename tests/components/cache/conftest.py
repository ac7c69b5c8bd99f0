"""What every test of the cache room needs: an application with a cache on each back end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from flask import Flask

from flask_prod import ProdKit
from flask_prod.components.cache import CacheFace, SafeBackend
from tests.apps import MakeApp
from tests.servers import Valkey

MakeShop: TypeAlias = Callable[..., tuple[Flask, CacheFace]]


@pytest.fixture(scope="session", autouse=True)
def server_first(shared_valkey: Valkey) -> None:
    """Start the shared server before a test counts its processes: fixtures here ask for it while they run."""


@pytest.fixture
def make_shop(make_app: MakeApp) -> MakeShop:
    """Give a factory of applications with a cache, in memory unless there is a REDIS_URL."""

    def make(kit: ProdKit | None = None, **config: Any) -> tuple[Flask, CacheFace]:
        kit = kit or ProdKit(only=["redis", "cache"])
        return make_app(kit=kit, SECRET_KEY="test" * 10, **config), kit.cache

    return make


@pytest.fixture(params=["memory", "file", "redis"])
def shop(request: pytest.FixtureRequest, make_shop: MakeShop, tmp_path: Path) -> tuple[Flask, CacheFace]:
    """Give an application and its cache, on each back end."""
    if request.param == "redis":
        return make_shop(REDIS_URL=request.getfixturevalue("redis_url"))
    return make_shop(CACHE_BACKEND=request.param, CACHE_DIR=str(tmp_path / "cache"))


def backend_of(app: Flask) -> SafeBackend:
    """Return the back end of an application."""
    backend: SafeBackend = app.extensions["prod"].contributions["cache"].handle
    return backend


class Counter:
    """A counter that a test can read; put in place of one of the meter's."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def inc(self, *labels: str) -> None:
        self.seen.append(labels[0])
