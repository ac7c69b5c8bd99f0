"""Whose session a request gets: its tenant's, or none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from flask_prod import ProdKit
from flask_prod.components.database import NoTenant, TenantError, UnknownTenant
from flask_prod.core.errors import ConfigError, NotInstalled, ProdKitError
from tests.apps import MakeApp

from .conftest import NAMES, Item, Open, Shop, by_header


def owners(shop: Shop) -> None:
    """Add the view that shows whose rows a request sees."""

    @shop.app.get("/owners")
    def show() -> list[str]:
        return list(shop.prod.db.session.scalars(select(Item.owner).distinct()))


@pytest.mark.parametrize("kind", ["schemas", "databases"])
def test_session_is_the_tenants(kind: str, request: pytest.FixtureRequest) -> None:
    """`prod.db.session` is the session of the tenant that the request names."""
    make: Open = request.getfixturevalue(f"with_{kind}")
    shop = make().stock(*NAMES)
    by_header(shop.prod)
    owners(shop)
    client = shop.app.test_client()

    for name in (*NAMES, *NAMES):
        assert client.get("/owners", headers={"X-Tenant": name}).json == [name]


@pytest.mark.parametrize("kind", ["schemas", "databases"])
def test_no_tenant_no_data(kind: str, request: pytest.FixtureRequest) -> None:
    """A request without a tenant gets 400, one with a tenant that is none 404: never another's rows."""
    make: Open = request.getfixturevalue(f"with_{kind}")
    shop = make().stock("acme")
    by_header(shop.prod)
    owners(shop)
    client = shop.app.test_client()

    assert client.get("/owners").status_code == 400
    for name in ("nobody", "Acme", "acme;", "../acme", "public", "x" * 64, "x" * 63):
        assert client.get("/owners", headers={"X-Tenant": name}).status_code == 404
    assert client.get("/owners", headers={"X-Tenant": "acme"}).json == ["acme"]


def test_own_handler_wins(with_databases: Open) -> None:
    """The application's own handler for TenantError answers instead."""
    shop = with_databases()
    by_header(shop.prod)
    owners(shop)
    shop.app.register_error_handler(TenantError, lambda error: (type(error).__name__, 418))

    answer = shop.app.test_client().get("/owners")

    assert (answer.status_code, answer.text) == (418, "NoTenant")


def test_nobody_names_tenants(with_databases: Open) -> None:
    """Without a function that names them, and outside of requests, the error says what to use."""
    shop = with_databases()
    with shop.app.test_request_context(), pytest.raises(NoTenant, match="tenant_of_request"):
        shop.prod.db.session.connection()
    with shop.app.app_context(), pytest.raises(NoTenant, match="active"):
        shop.prod.db.session.connection()


def test_active_tenant(with_databases: Open) -> None:
    """In jobs and commands a block has a tenant; blocks within blocks, and what is around them, have their own."""
    shop = with_databases().stock(*NAMES)

    def seen(session: Session) -> list[str]:
        return list(session.scalars(select(Item.owner).distinct()))

    with shop.app.app_context():
        with shop.prod.db.tenant("acme").active():
            assert seen(shop.prod.db.session) == ["acme"]
            with shop.prod.db.tenant("globex").active():
                assert seen(shop.prod.db.session) == ["globex"]
            assert seen(shop.prod.db.session) == ["acme"]
        with pytest.raises(NoTenant):
            seen(shop.prod.db.session)


def test_sessions_end_with_their_context(with_databases: Open) -> None:
    """What a context did not commit is rolled back, its connections come back, and its pools may be closed."""
    shop = with_databases(DATABASE_TENANT_POOLS=1).stock("acme")

    with shop.app.app_context():
        engine = shop.prod.db.tenant("acme").engine
        shop.prod.db.tenant("acme").session.add(Item(owner="nobody"))
        shop.prod.db.tenant("acme").session.flush()
        assert engine.pool.checkedout() == 1  # type: ignore[attr-defined]

    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    with shop.app.app_context():
        shop.prod.db.tenant("globex").engine.connect().close()
        assert shop.prod.db.tenant("acme").session.scalars(select(Item.owner).distinct()).all() == ["acme"]


def test_all_pools_in_use(with_databases: Open) -> None:
    """When every pool that may be open is in use, another tenant's request gets 503 and may come again."""
    shop = with_databases(DATABASE_TENANT_POOLS=1).stock("acme").stock("globex")
    by_header(shop.prod)
    owners(shop)

    with shop.app.app_context():
        shop.prod.db.tenant("acme").session.execute(text("SELECT 1"))
        answer = shop.app.test_client().get("/owners", headers={"X-Tenant": "globex"})

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert shop.app.test_client().get("/owners", headers={"X-Tenant": "globex"}).json == ["globex"]


def test_session_factory(with_schemas: Open) -> None:
    """A tenant's factory makes sessions of that tenant, outside of any context's end."""
    shop = with_schemas().stock("acme")

    with shop.app.app_context():
        factory = shop.prod.db.tenant("acme").session_factory
    with factory.begin() as session:
        session.add(Item(owner="acme"))
    with factory() as session:
        assert len(session.scalars(text("SELECT id FROM item")).all()) == 4


def test_address_by_template(make_app: MakeApp, tmp_path: Path) -> None:
    """{tenant} in DATABASE_TENANT_URL is the tenant's name."""
    prod = ProdKit(only=["database"])
    app = make_app(
        kit=prod, DATABASE_TENANTS="database", DATABASE_TENANT_URL=f"sqlite:///{tmp_path}/t/{{tenant}}.db"
    )

    with app.app_context():
        prod.db.tenant("acme").session.execute(text("CREATE TABLE x (id INT)"))
        prod.db.tenant("acme").session.commit()

    assert [path.name for path in (tmp_path / "t").glob("*.db")] == ["acme.db"]


def test_request_makes_no_file(make_app: MakeApp, tmp_path: Path) -> None:
    """A request for a tenant without a file gets 404, and there is none afterwards either."""
    prod = ProdKit(only=["database"])
    app = make_app(
        kit=prod, DATABASE_TENANTS="database", DATABASE_TENANT_URL=f"sqlite:///{tmp_path}/{{tenant}}.db"
    )
    by_header(prod)
    app.add_url_rule("/", view_func=lambda: str(prod.db.session.scalar(text("SELECT 7"))))
    with app.app_context(), prod.db.tenant("acme").engine.begin() as connection:
        connection.execute(text("CREATE TABLE x (id INT)"))

    assert app.test_client().get("/", headers={"X-Tenant": "nobody"}).status_code == 404
    assert app.test_client().get("/", headers={"X-Tenant": "acme"}).text == "7"
    assert not (tmp_path / "nobody.db").exists()


def test_address_that_is_none(make_app: MakeApp) -> None:
    """A tenant's address that is none is not shown; a tenant without one is unknown, and none at all is said."""
    prod, other = ProdKit(only=["database"]), ProdKit(only=["database"])
    app = make_app(kit=prod, DATABASE_TENANTS="database")
    prod.db.tenant_url({"acme": "nonsense:secret", "long": f"postgresql://db/{'x' * 64}"}.get)

    with app.app_context():
        with pytest.raises(ProdKitError) as error:
            _ = prod.db.tenant("acme").engine
        for name in ("globex", "long"):
            with pytest.raises(UnknownTenant):
                _ = prod.db.tenant(name).engine
    with make_app(kit=other, DATABASE_TENANTS="database").app_context(), pytest.raises(ProdKitError, match="_URL"):
        _ = other.db.tenant("acme").engine

    assert "secret" not in str(error.value)


def test_schema_of_too_long_a_name(with_schemas: Open) -> None:
    """PostgreSQL cuts names at 63 bytes: a tenant whose schema would be cut is unknown, not somebody else."""
    shop = with_schemas()

    with shop.app.app_context(), pytest.raises(UnknownTenant):
        _ = shop.prod.db.tenant("x" * 57).engine


def test_off(make_app: MakeApp) -> None:
    """Without tenants `tenant` says which setting makes them, and wrong settings do not start."""
    prod = ProdKit(only=["database"])
    with make_app(kit=prod).app_context(), pytest.raises(NotInstalled, match="DATABASE_TENANTS"):
        prod.db.tenant("acme")
    with pytest.raises(ConfigError, match="DATABASE_TENANTS=schema needs PostgreSQL"):
        make_app(only=["database"], DATABASE_TENANTS="schema")


def test_shared_engine_stays(with_schemas: Open) -> None:
    """Tables that all tenants share are reached by `prod.db.engine` and `prod.db.session_factory`."""
    shop = with_schemas().stock("acme")

    with shop.app.app_context(), shop.prod.db.session_factory() as session:
        assert session.scalars(text("SELECT owner FROM item")).all() == ["public"]


@pytest.mark.parametrize("kind", ["schemas", "databases"])
def test_fork(kind: str, request: pytest.FixtureRequest) -> None:
    """A forked child has connections of its own for each tenant, and no session of its parent."""
    make: Open = request.getfixturevalue(f"with_{kind}")
    shop = make().stock("acme")
    backend = text("SELECT pg_backend_pid()")

    with shop.app.app_context():
        session = shop.prod.db.tenant("acme").session
        mine = session.scalar(backend)
        child = os.fork()
        if child == 0:  # pragma: no cover  # measured in the parent only
            theirs = shop.prod.db.tenant("acme").session.scalar(backend)
            owner = shop.prod.db.tenant("acme").session.scalar(select(Item.owner).limit(1))
            os._exit(0 if theirs != mine and owner == "acme" else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert session.scalar(backend) == mine


@pytest.mark.parametrize("kind", ["schemas", "databases"])
def test_cached_queries(kind: str, request: pytest.FixtureRequest) -> None:
    """Cached rows belong to their tenant; its commit forgets them, and what is not committed is not cached."""
    make: Open = request.getfixturevalue(f"with_{kind}")
    shop = make(only=["database", "cache"], CACHE_BACKEND="memory").stock("acme", "globex", rows=1)

    def seen(name: str) -> list[list[str]]:
        with shop.app.app_context(), shop.prod.db.tenant(name).active():
            asked = (select(Item.owner), text("SELECT owner FROM item"))
            return [list(shop.prod.cache.query(one, ttl="1m").scalars()) for one in asked]

    assert [seen(name) for name in ("acme", "globex", "acme")] == [[[n], [n]] for n in ("acme", "globex", "acme")]
    with shop.app.app_context(), shop.prod.db.tenant("acme").active():
        shop.prod.db.session.add(Item(owner="acme"))
        shop.prod.db.session.flush()
        assert len(shop.prod.cache.query(select(Item.owner), ttl="1m")) == 2
        assert seen("acme") == [["acme"], ["acme"]]
        shop.prod.db.session.commit()
    assert seen("acme")[0] == ["acme", "acme"]
    assert seen("globex") == [["globex"], ["globex"]]


def test_statements_are_counted(with_databases: Open) -> None:
    """Tenants' engines go by the role `tenant` in metrics, and the number of open pools is one."""
    shop = with_databases(only=["database", "metrics"]).stock(*NAMES)
    page = metrics_of(shop.app)

    assert 'operation="INSERT",role="tenant",table="item"' in page
    assert "flask_prod_database_tenant_pools 3.0" in page


def metrics_of(app: Flask) -> str:
    return app.test_client().get("/metrics").text
