"""A schema per tenant on one pool: bound at checkout, let go at checkin."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

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


def test_nothing_of_a_tenant_stays_on_its_connection(with_schemas: Open) -> None:
    """A temporary table, a cursor that outlives its transaction and the last number of a sequence go with it."""
    shop = with_schemas(DATABASE_MAX_OPEN_CONNS=1).stock("acme", "globex")
    left = (
        "CREATE TEMP TABLE report AS SELECT owner FROM item",
        "CREATE TEMP TABLE other AS SELECT 'acme' AS owner",
        "ALTER TABLE other RENAME TO item",
        "DECLARE rest CURSOR WITH HOLD FOR SELECT owner FROM report",
        "SELECT nextval('item_id_seq')",
    )
    with shop.app.app_context():
        session = shop.prod.db.tenant("acme").session
        for statement in left:
            session.execute(text(statement))
        session.commit()

    for tenant in ("globex", ""):
        with shop.app.app_context():
            engine = shop.prod.db.tenant(tenant).engine if tenant else shop.prod.db.engine
        with engine.connect() as connection:
            assert set(connection.scalars(text("SELECT owner FROM item"))) <= {"globex", "public"}
            for statement in ("SELECT * FROM report", "FETCH ALL FROM rest", "SELECT lastval()"):
                with pytest.raises(DBAPIError):
                    connection.execute(text(statement))
                connection.rollback()


def test_what_shared_code_leaves_is_not_the_tenants(with_schemas: Open) -> None:
    """A temporary table of the shared engine hides no table of a tenant who gets its connection next."""
    shop = with_schemas(DATABASE_MAX_OPEN_CONNS=1).stock("acme")
    with shop.app.app_context():
        with shop.prod.db.engine.begin() as connection:
            connection.execute(text("CREATE TEMP TABLE item AS SELECT 'nobody' AS owner"))
        with shop.prod.db.tenant("acme").engine.connect() as connection:
            assert set(connection.scalars(text("SELECT owner FROM item"))) == {"acme"}
