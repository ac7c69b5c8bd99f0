"""A schema per tenant on one pool: bound at checkout, let go at checkin."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import text

from .conftest import Open, Shop
from .test_isolation import WAYS, Seen


@pytest.mark.parametrize("way", WAYS)
def test_connection_comes_back_unbound(way: Callable[[Shop, str], Seen], with_schemas: Open) -> None:
    """Whatever a tenant did with a connection, who takes it next from the shared engine is at home in public."""
    shop = with_schemas(DATABASE_MAX_OPEN_CONNS=1).stock("acme")

    for _ in range(2):
        with shop.app.app_context():
            assert set(way(shop, "acme")) == {"acme"}
        with shop.app.app_context(), shop.prod.db.engine.connect() as connection:
            assert connection.scalars(text("SELECT owner FROM item")).all() == ["public"]
            assert connection.scalar(text("SHOW search_path")) == '"$user", public'
