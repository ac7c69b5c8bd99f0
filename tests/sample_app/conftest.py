"""A prepared database for the whole run, and shops that each use a copy of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from flask import Flask

from sample_app import create_app
from tests.servers import Valkey

from .shop import ENVIRONMENT, Browser, Shop, copy_of, prepare

MakeShopApp: TypeAlias = Callable[..., Flask]
StartShop: TypeAlias = Callable[..., Shop]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the path of a prepared SQLite file, to be copied."""
    folder = tmp_path_factory.mktemp("prepared")
    prepare(f"sqlite:///{folder / 'shop.db'}", folder)
    return folder / "shop.db"


@pytest.fixture(scope="session")
def shop(prepared: Path, shared_valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Run one shop for all tests that bring accounts of their own and leave the stock of others alone."""
    env = copy_of(prepared, tmp_path_factory.mktemp("shop"))
    with Shop({**env, "REDIS_URL": f"{shared_valkey.url[:-1]}9"}) as running:
        yield running


@pytest.fixture
def browser(shop: Shop) -> Browser:
    """Give a browser that was never here before."""
    return Browser(shop)


@pytest.fixture
def start_shop(prepared: Path, tmp_path: Path) -> Iterator[StartShop]:
    """Give a factory of shops of a test's own: `start_shop(REDIS_URL=...)`."""
    with ExitStack() as stack:

        def start(**env: str) -> Shop:
            return stack.enter_context(Shop({**copy_of(prepared, tmp_path), **env}))

        yield start


@pytest.fixture
def shop_app(prepared: Path, tmp_path: Path) -> Iterator[MakeShopApp]:
    """Give a factory of shops in this process, on a copy of the prepared database."""
    made: list[Flask] = []

    def make(**config: Any) -> Flask:
        base: Mapping[str, Any] = {**ENVIRONMENT, **copy_of(prepared, tmp_path)}
        made.append(create_app({**base, **config}))
        return made[-1]

    yield make
    for app in made:
        app.extensions["prod"].lifecycle.close()
