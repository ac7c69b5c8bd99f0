"""Sessions that read from a replica where the code says so, against a real primary and a real replica."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine, event, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

from flask_prod import ProdKit
from tests.apps import MakeApp
from tests.postgres import ask

from .conftest import PORT, MakeReplicated, Product, Shelf, Shop


def held(session: Session) -> int:
    """Return how many connections a session holds."""
    found: dict[object, object] = getattr(session.get_transaction(), "_connections", {})
    return len(found) // 2


def change_elsewhere(shop: Shop, **values: object) -> None:
    """Let another client change all products, of which the replica hears nothing."""
    shop.pair.replica.hold()
    other = create_engine(shop.pair.primary.url())
    with other.begin() as connection:
        connection.execute(update(Product).values(**values))
    other.dispose()


def test_nothing_is_routed_by_itself(shop: Shop) -> None:
    """A query that says nothing goes to the primary."""
    assert shop.server() == "primary"


def test_a_block(shop: Shop) -> None:
    """Reads within `with prod.db.replica():` go to a replica, those within prod.db.primary() do not."""
    with shop.prod.db.replica():
        assert shop.server() == "replica"
        shop.prod.db.session.rollback()
        with shop.prod.db.primary():
            assert shop.server() == "primary"
        shop.prod.db.session.rollback()
        assert shop.server() == "replica"
    shop.prod.db.session.rollback()
    assert shop.server() == "primary"


def test_a_query(shop: Shop) -> None:
    """The option `replica` of a statement or of its execution says it for one query."""
    assert shop.server(replica=True) == "replica"
    shop.prod.db.session.rollback()
    with shop.prod.db.replica():
        assert shop.server(replica=False) == "primary"
    shop.prod.db.session.rollback()
    found = shop.prod.db.session.execute(text("SELECT inet_server_port()"), execution_options={"replica": True})
    assert found.scalar() == shop.pair.replica.port


def test_a_session(shop: Shop) -> None:
    """`info={"replica": True}` says it for all reads of a session."""
    with shop.prod.db.session_factory(info={"replica": True}) as session:
        assert shop.server(session) == "replica"
        session.execute(update(Product).values(stock=1))
        assert shop.server(session) == "primary"


def test_text_and_locks_stay(shop: Shop) -> None:
    """Text, locks and functions that nobody knows go to the primary within a block too."""
    session = shop.prod.db.session
    with shop.prod.db.replica():
        assert session.scalar(text("SELECT inet_server_port()")) == shop.pair.primary.port
        session.rollback()
        assert session.scalars(select(Product).with_for_update()).first() is not None
        assert shop.server() == "primary"
        session.rollback()
        session.execute(select(func.pg_advisory_xact_lock(7)))
    locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
    assert ask(shop.pair.primary, locks) == "1"
    assert ask(shop.pair.replica, locks) == "0"


def test_writes_stay(shop: Shop) -> None:
    """Objects, statements and common tables that write do so on the primary, and are then seen."""
    session = shop.prod.db.session
    count = select(func.count()).select_from(Product)
    with shop.prod.db.replica():
        assert session.scalar(count) == 3
        session.add(Product(name="by object", stock=1, shelf_id=1))
        assert session.scalar(count) == 4  # written first, so read from the primary
        session.execute(insert(Product).values(name="by statement", stock=1, shelf_id=1))
        new = insert(Product).values(name="by table", stock=1, shelf_id=1).returning(Product.id).cte("new")
        session.execute(select(new))
        session.commit()

        assert session.scalar(count) == 6
    assert ask(shop.pair.primary, "SELECT count(*) FROM products") == "6"


def test_a_transaction_stays_where_it_began(shop: Shop) -> None:
    """A transaction that began on the primary reads on there: one snapshot, and one connection."""
    session = shop.prod.db.session
    session.scalars(select(Product)).all()

    with shop.prod.db.replica():
        assert shop.server() == "primary"
    assert held(session) == 1


def test_a_transaction_turns_once(shop: Shop) -> None:
    """One that has read from a replica gives its connection back when it turns, and does not return."""
    session = shop.prod.db.session
    assert shop.server(replica=True) == "replica"
    assert shop.known.in_use == 1

    assert shop.server() == "primary"

    assert held(session) == 1
    assert shop.known.in_use == 0
    assert shop.server(replica=True) == "primary"
    session.commit()
    assert shop.server(replica=True) == "replica"


def test_what_belongs_to_objects_comes_from_where_they_came_from(shop: Shop) -> None:
    """Relationships that are loaded later, outside of the block, are read from the replica too."""
    session = shop.prod.db.session
    with shop.prod.db.replica():
        shelf = session.scalars(select(Shelf)).one()

    assert len(shelf.products) == 3
    session.refresh(shelf)

    assert shop.known.in_use == 1
    assert session.get_bind() is shop.database.engine


def test_old_values_do_not_overwrite_new_ones(shop: Shop) -> None:
    """Who computes from an object of a lagging replica gets StaleDataError, not a lost update."""
    session = shop.prod.db.session
    change_elsewhere(shop, stock=5)
    with shop.prod.db.replica():
        product = session.get_one(Product, 1)
    assert product.stock == 10
    product.stock -= 1

    with pytest.raises(StaleDataError, match=r"Product \(1,\) was read from a replica, and its stock has changed"):
        session.commit()

    assert ask(shop.pair.primary, "SELECT stock FROM products WHERE id = 1") == "5"


def test_true_values_are_written(shop: Shop) -> None:
    """An object of a replica that is not behind may be changed and deleted."""
    session = shop.prod.db.session
    with shop.prod.db.replica():
        first, second = session.scalars(select(Product).order_by(Product.id).limit(2))
    first.stock -= 1
    session.delete(second)
    session.commit()

    assert (
        ask(shop.pair.primary, "SELECT string_agg(id || ':' || stock, ' ' ORDER BY id) FROM products")
        == "1:9 3:10"
    )


def test_a_deleted_object(shop: Shop) -> None:
    """What the primary has no more cannot be changed."""
    session = shop.prod.db.session
    shop.pair.replica.hold()
    shop.pair.primary.execute("DELETE FROM products WHERE id = 1")
    with shop.prod.db.replica():
        product = session.get_one(Product, 1)
    product.stock = 3

    with pytest.raises(StaleDataError, match="is deleted"):
        session.flush()


def test_unchanged_objects_are_read_anew_before_a_write(shop: Shop) -> None:
    """A lock or a write finds no old copies in the session: what it decides by is the primary's."""
    session = shop.prod.db.session
    change_elsewhere(shop, stock=5)
    with shop.prod.db.replica():
        product, other = session.scalars(select(Product).order_by(Product.id).limit(2))
    assert (product.stock, other.stock) == (10, 10)

    session.execute(select(Product.id).with_for_update())

    assert (product.stock, other.stock) == (5, 5)


def test_a_streaming_read_goes_on(shop: Shop) -> None:
    """Rows that are fetched piece by piece keep their connection, also when something is written meanwhile."""
    session = shop.prod.db.session
    query = select(Product).order_by(Product.id).execution_options(yield_per=1, replica=True)
    names = []
    for product in session.scalars(query):
        names.append(product.name)
        session.execute(insert(Product).values(name="more", stock=1, shelf_id=1))
    session.commit()

    assert names == ["product 1", "product 2", "product 3"]


def test_a_savepoint(shop: Shop) -> None:
    """Within a savepoint of a replica's transaction reads stay where they are, and a write is kept."""
    session = shop.prod.db.session
    with shop.prod.db.replica():
        assert shop.server() == "replica"
        with session.begin_nested():
            assert shop.server() == "replica"
            session.add(Product(name="new", stock=1, shelf_id=1))
        session.commit()
    assert ask(shop.pair.primary, "SELECT count(*) FROM products") == "4"


def test_a_dead_replica_fails_no_read(shop: Shop) -> None:
    """A replica that is killed is left alone at once; the read that noticed is answered by the primary."""
    session = shop.prod.db.session
    assert shop.server(replica=True) == "replica"
    session.commit()
    shop.pair.to_replica.set("refuse")

    for _ in range(5):
        assert shop.server(replica=True) == "primary"
        session.commit()

    shop.pair.to_replica.set("pass")
    shop.ready()
    assert shop.server(replica=True) == "replica"


def test_a_replica_that_dies_in_a_transaction(shop: Shop) -> None:
    """Later reads of a transaction move to the primary too, and what was loaded stays."""
    session = shop.prod.db.session
    with shop.prod.db.replica():
        shelf = session.scalars(select(Shelf)).one()
        shop.pair.to_replica.set("refuse")

        assert len(shelf.products) == 3
        assert shop.server() == "primary"
    assert held(session) == 1


def test_a_strict_transaction_does_not_move(make_shop: MakeReplicated) -> None:
    """Under REPEATABLE READ a transaction that has read cannot go on elsewhere: the error is the caller's."""
    shop = make_shop()
    strict = {"isolation_level": "REPEATABLE READ"}
    shop.known.engine.update_execution_options(**strict)
    with shop.app.app_context(), shop.prod.db.replica():
        shelf = shop.prod.db.session.scalars(select(Shelf)).one()
        shop.pair.to_replica.set("refuse")

        with pytest.raises(OperationalError):
            assert shelf.products


def test_errors_of_the_query_itself_are_the_callers(shop: Shop) -> None:
    """What the primary would refuse too is not asked twice."""
    asked: list[str] = []
    event.listen(shop.database.engine, "before_cursor_execute", lambda *given: asked.append(given[2]))

    with pytest.raises(DBAPIError), shop.prod.db.replica():
        shop.prod.db.session.execute(select(func.sqrt(-1)))

    assert asked == []


def test_a_replica_takes_no_writes(shop: Shop) -> None:
    """A function that writes after all does so on the primary: a replica's connections only read."""
    shop.pair.primary.execute(
        "CREATE OR REPLACE FUNCTION place_order() RETURNS int LANGUAGE sql "
        "AS 'INSERT INTO numbers VALUES (1) RETURNING 1'"
    )
    shop.ready()

    assert shop.prod.db.session.scalar(select(func.place_order()).execution_options(replica=True)) == 1
    shop.prod.db.session.commit()

    assert ask(shop.pair.primary, "SELECT count(*) FROM numbers") == "1"


def test_cached_rows_come_from_the_primary(make_shop: MakeReplicated) -> None:
    """What the cache is to keep is not read from a replica: it may lack the change that emptied the cache."""
    shop = make_shop("cache")
    with shop.app.app_context(), shop.prod.db.replica():
        session = shop.prod.db.session
        found = session.execute(select(PORT), execution_options={"cache_ttl": "1m"})
        assert found.scalar() == shop.pair.primary.port
        session.rollback()
        assert shop.prod.cache.query(select(PORT)).scalar() == shop.pair.primary.port


def test_sessions_of_other_databases(shop: Shop) -> None:
    """A session that is bound to something else has nothing to do with our replicas."""
    other = create_engine(shop.pair.primary.url())
    with shop.prod.db.replica(), shop.prod.db.session_factory(bind=other) as session:
        assert shop.server(session) == "primary"
    other.dispose()


def test_without_replicas(make_app: MakeApp) -> None:
    """All of it works where there are no replicas, and costs nothing: sessions are SQLAlchemy's own."""
    prod = ProdKit(only=["database"])
    app = make_app(kit=prod, DATABASE_URL="sqlite://")
    with app.app_context(), prod.db.replica():
        assert prod.db.session.scalar(select(1).execution_options(replica=True)) == 1
        assert type(prod.db.session).__mro__[1] is Session


def test_the_primary_down(shop: Shop) -> None:
    """Marked reads go on while the primary is away, and others fail."""
    session = shop.prod.db.session
    shop.pair.to_primary.set("refuse")

    assert shop.server(replica=True) == "replica"
    session.commit()
    with pytest.raises(OperationalError):
        shop.server()
