"""Whether servers have as many connections as all processes together may open, and who is told when not."""

from __future__ import annotations

import threading

import pytest

from flask_prod.components.database import DatabaseSettings
from flask_prod.components.database.pools.capacity import Room, ask, judge
from flask_prod.components.database.pools.wanted import PRIMARY, REPLICA, TENANTS, wishes, wishes_of_values
from flask_prod.core.component import Event
from flask_prod.core.values import SecretUrl
from tests.components.database.conftest import MakeShop
from tests.servers import wait_for

SHOP = SecretUrl("postgresql://shop:secret@db/shop")
COPIES = (SecretUrl("postgresql://shop:secret@copy-1/shop"), SecretUrl("postgresql://shop:secret@copy-2/shop"))


def test_processes_and_job_workers() -> None:
    """Web processes count with all they may open, job workers with two; without the room there is no sum."""
    assert [wish.total for wish in wishes(DatabaseSettings(max_open_conns=10), 4)] == [40]
    (told,) = wishes(DatabaseSettings(max_open_conns=10), 4, job_workers=3)
    assert str(told) == "4 web processes x 10 connections + 3 job workers x 2 = 46"
    assert [wish.total for wish in wishes(DatabaseSettings(max_open_conns=1), 4, job_workers=3)] == [7]
    assert wishes_of_values({"DATABASE_MAX_OPEN_CONNS": 5}, 2)[0].total == 10
    assert wishes_of_values({}, 2) == ()


def test_replicas() -> None:
    """Each replica has pools as the primary has, and each process looks at all of them by one connection more."""
    settings = DatabaseSettings(url=SHOP, replica_urls=COPIES, max_open_conns=10)

    found = wishes(settings, 4, job_workers=3)

    assert {wish.server: wish.total for wish in found} == {PRIMARY: 40 + 6 + 7, REPLICA: 40 + 6 + 7}


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("postgresql://app:secret@db/shop_{tenant}", {PRIMARY: 40 + 4 * 20 * 3}),
        ("postgresql+psycopg://app:secret@DB:5432/shop_{tenant}", {PRIMARY: 40 + 4 * 20 * 3}),
        ("postgresql://app:secret@tenants/shop_{tenant}", {PRIMARY: 40, TENANTS: 4 * 20 * 3}),
        ("postgresql://app:secret@{tenant}.db/shop", {PRIMARY: 40, TENANTS: 4 * 3}),
        ("", {PRIMARY: 40, TENANTS: 4 * 20 * 3}),
    ],
)
def test_tenants(address: str, wanted: dict[str, int]) -> None:
    """Tenants' pools count on the server that they lead to: the primary's, another one, or one of each."""
    settings = DatabaseSettings(
        url=SHOP, tenants="database", tenant_url=SecretUrl(address), tenant_pools=20, tenant_open_conns=3
    )

    assert {wish.server: wish.total for wish in wishes(settings, 4)} == wanted
    assert {wish.server: wish.total for wish in wishes_of_values(values_of(settings), 4)} == wanted


def test_tenants_that_share_the_pool() -> None:
    """Schemas of tenants, and files of SQLite, want nothing more."""
    schemas = DatabaseSettings(url=SHOP, tenants="schema")
    files = DatabaseSettings(
        url=SecretUrl("sqlite:////var/shop.db"),
        tenants="database",
        tenant_url=SecretUrl("sqlite:////var/{tenant}.db"),
    )

    for settings in (schemas, files):
        assert {wish.server: wish.total for wish in wishes(settings, 4)} == {PRIMARY: 40}


def values_of(settings: DatabaseSettings) -> dict[str, object]:
    names = ("url", "tenants", "tenant_url", "tenant_pools", "tenant_open_conns", "max_open_conns")
    return {f"DATABASE_{name.upper()}": getattr(settings, name) for name in names}


def test_warning() -> None:
    """What does not fit is told with its numbers and with the value that would fit."""
    settings = DatabaseSettings(max_open_conns=10)
    room = Room(most=100, reserved=3, others=17)

    assert judge(settings, wishes(settings, 8)[0], room, 8) is None
    told = judge(settings, wishes(settings, 8, 1)[0], room, 8)
    assert told is not None
    assert (told.name, told.severity) == ("prod.database.capacity", "warning")
    assert "Of the primary: 8 web processes x 10 connections + 1 job workers x 2 = 82, but" in told.message
    assert "the server has 100 - 3 reserved - 17 of others = 80 on all hosts" in told.message
    assert "DATABASE_MAX_OPEN_CONNS to 9 or less" in told.message
    none_fits = judge(settings, wishes(settings, 8)[0], Room(10, 3, 7), 8)
    assert none_fits is not None
    assert "Run fewer processes" in none_fits.message


def test_warning_about_tenants() -> None:
    """Where tenants' pools are what does not fit, they are what is to be lowered."""
    settings = DatabaseSettings(
        url=SHOP, tenants="database", tenant_url=SecretUrl("postgresql://db/{tenant}"), tenant_open_conns=5
    )

    told = judge(settings, wishes(settings, 2)[0], Room(most=100, reserved=3, others=0), 2)

    assert told is not None
    assert "2 web processes x 10 connections + 2 x 50 tenants x 5 = 520" in told.message
    assert "Lower DATABASE_TENANT_POOLS" in told.message


def test_server_is_asked_how_many_it_takes(make_shop: MakeShop, postgres_url: str) -> None:
    """What others hold is counted, what this service holds is not; SQLite has no such limit."""
    _, database = make_shop(DATABASE_URL=postgres_url)
    _, other = make_shop(DATABASE_URL=f"{postgres_url}?application_name=somebody")
    _, lite = make_shop(DATABASE_URL="sqlite://")

    before = ask(database.engine, "shop")
    with other.engine.connect(), other.engine.connect(), database.engine.connect():
        after = ask(database.engine, "shop")

    assert before is not None
    assert after is not None
    assert (after.most, after.reserved, after.allowed) == (120, 3, None)
    assert after.others == before.others + 2
    assert ask(lite.engine, "shop") is None


def test_limit_of_a_role(make_shop: MakeShop, postgres_url: str) -> None:
    """A role that may have fewer connections than the server gives is told so."""
    _, owner = make_shop(DATABASE_URL=postgres_url)
    name = "limited_role"
    with owner.engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {name} LOGIN CONNECTION LIMIT 4")
    _, database = make_shop(DATABASE_URL=postgres_url.replace("postgres@", f"{name}@"))
    settings = DatabaseSettings()

    try:
        room = ask(database.engine, "shop")
    finally:
        database.engine.dispose()
        with owner.engine.begin() as connection:
            connection.exec_driver_sql(f"DROP ROLE {name}")

    assert room is not None
    assert room.left == 4
    told = judge(settings, wishes(settings, 1)[0], room, 1)
    assert told is not None
    assert "= 10, but its user or database may have 4 there on all hosts" in told.message


def test_start_with_too_many_processes(
    make_shop: MakeShop, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In production one process of a host says that all of them together want more than the server has."""
    monkeypatch.setenv("WEB_CONCURRENCY", "16")
    config = {"DATABASE_URL": postgres_url, "ENVIRONMENT": "production", "DATABASE_WARM_UP": False}
    heard: list[Event] = []
    apps = [make_shop(**config) for _ in range(2)]

    for app, database in apps:
        assert database.opening is not None
        database.opening.emit = heard.append
        app.extensions["prod"].lifecycle.start()
        wait_for(lambda: heard)
        wait_for(lambda: not [t for t in threading.enumerate() if t.name == "flask-prod-database-opening"])

    assert [event.name for event in heard] == ["prod.database.capacity"]
    assert "Of the primary: 16 web processes x 10 connections = 160" in heard[0].message


def test_replicas_are_asked_too(make_shop: MakeShop, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each replica's server is asked; one that is away keeps nobody from asking the others."""
    monkeypatch.setenv("WEB_CONCURRENCY", "16")
    away = "postgresql+psycopg://postgres@127.0.0.1:1/shop"
    config = {"DATABASE_URL": postgres_url, "DATABASE_WARM_UP": False, "ENVIRONMENT": "production"}
    app, database = make_shop(**config, DATABASE_REPLICA_URLS=[away, postgres_url])
    heard: list[Event] = []
    assert database.opening is not None
    database.opening.emit = heard.append

    app.extensions["prod"].lifecycle.start()
    wait_for(lambda: len(heard) == 2)

    assert [event.fields["server"] for event in heard] == [PRIMARY, REPLICA]
    assert "16 web processes x 10 connections + 16 that look at replicas x 1 = 176" in heard[1].message
