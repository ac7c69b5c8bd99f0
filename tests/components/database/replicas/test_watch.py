"""Replicas that lag, hang or die, seen by the threads that watch them."""

from __future__ import annotations

import os
import threading
from time import monotonic, sleep

import pytest
from sqlalchemy import select

from flask_prod import ProdKit
from flask_prod.components.database.replicas.watch import History
from flask_prod.core.component import Event
from flask_prod.core.errors import ConfigError
from tests.apps import MakeApp
from tests.servers import wait_for

from .conftest import MakeReplicated, Product, Shop


def is_out(shop: Shop, why: str) -> bool:
    """Tell whether the replica is left alone for this reason."""
    return why in shop.known.why_out(monotonic())


def test_lag(make_shop: MakeReplicated) -> None:
    """A replica further behind than DATABASE_REPLICA_MAX_LAG leaves the rotation, and comes back by itself."""
    shop = make_shop(DATABASE_REPLICA_MAX_LAG=0.7)
    with shop.app.app_context():
        shop.pair.replica.hold()
        shop.pair.primary.execute("UPDATE products SET stock = 1")
        wait_for(lambda: is_out(shop, "s behind"), 15, "the lagging replica's leave")
        assert shop.server(replica=True) == "primary"
        assert (shop.known.lag or 0) > 0.7

        shop.prod.db.session.rollback()
        shop.pair.replica.go_on()
        wait_for(lambda: shop.known.is_in(monotonic()), 15, "the replica's return")
        assert shop.server(replica=True) == "replica"


def test_nothing_is_written(shop: Shop) -> None:
    """A replica of a primary to which nothing is written is not behind, however long that lasts."""
    sleep(0.7)

    assert shop.known.lag == 0.0
    assert shop.known.is_in(monotonic())


def test_a_replica_that_hangs(shop: Shop) -> None:
    """One that takes connections and does not answer leaves the rotation within some 2 s."""
    shop.pair.to_replica.set("blackhole")
    began = monotonic()
    wait_for(lambda: shop.known.why_out(monotonic()), 15, "the hanging replica's leave")

    assert monotonic() - began < 10  # 2 s, and what a busy machine adds
    assert shop.server(replica=True) == "primary"


def test_a_read_that_hangs(shop: Shop) -> None:
    """A read that waits for a replica without an answer is cut off after some 2 s, and asks the primary."""
    assert shop.server(replica=True) == "replica"
    shop.pair.to_replica.set("blackhole")
    began = monotonic()

    assert shop.server(replica=True) == "primary"
    assert monotonic() - began < 10  # without, it would wait for ever


def test_the_primary_away(shop: Shop) -> None:
    """Without the primary its replicas stay: what they have is all there is."""
    shop.pair.to_primary.set("refuse")
    sleep(1.2)

    assert shop.known.is_in(monotonic())
    assert shop.known.lag == 0.0


def test_a_start_without_the_primary(make_app: MakeApp, pair: object, make_shop: MakeReplicated) -> None:
    """A process that starts while the primary is away reads from a replica all the same."""
    shop = make_shop()
    shop.replication.close()
    shop.pair.to_primary.set("refuse")
    second = Shop(make_app(kit=(kit := ProdKit(only=["database"])), **shop.pair.config), kit, shop.pair)
    second.replication.start()
    wait_for(lambda: second.known.is_in(monotonic()), 15, "the replica")

    with second.app.app_context():
        assert second.server(replica=True) == "replica"


def test_history() -> None:
    """The lag is the time since the primary was first seen beyond where the replica is."""
    history = History()
    assert history.lag(9.0, 50) == (0.0, True)
    for seen, position in ((10.0, 100), (11.0, 100), (12.0, 200), (13.0, 300)):
        history.add(seen, position)

    assert history.lag(14.0, 300) == (0.0, True)
    assert history.lag(14.0, 250) == (1.0, True)
    assert history.lag(14.0, 100) == (2.0, True)
    assert history.lag(14.0, 50) == (4.0, False)


def test_news(make_shop: MakeReplicated, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica that leaves and one that comes back is told of once, and shown as a metric."""
    shop = make_shop("metrics")
    events: list[Event] = []
    monkeypatch.setattr(shop.replication.news, "_emit", events.append)
    shop.pair.to_replica.set("refuse")
    wait_for(lambda: len(events) == 1, 15, "the replica's leave")
    page = shop.app.test_client().get("/metrics").text
    assert 'flask_prod_database_replica_in_rotation{server="replica-1"} 0.0' in page
    assert 'flask_prod_database_replica_lag_seconds{server="replica-1"}' in page
    shop.pair.to_replica.set("pass")
    wait_for(lambda: len(events) == 2, 15, "the replica's return")

    assert [(event.name, event.severity) for event in events] == [
        ("prod.database.replica_left", "warning"),
        ("prod.database.replica_returned", "info"),
    ]
    assert "replica-1 takes no reads: it cannot be reached" in events[0].message


def test_reads_are_counted(make_shop: MakeReplicated) -> None:
    """The metric tells where marked reads went, and why."""
    shop = make_shop("metrics")
    with shop.app.app_context():
        session = shop.prod.db.session
        shop.server(replica=True)
        session.execute(select(Product).with_for_update().execution_options(replica=True))
        shop.server(replica=True)
    page = shop.app.test_client().get("/metrics").text

    for server, reason in (("replica-1", "asked"), ("primary", "statement"), ("primary", "transaction")):
        assert f'flask_prod_database_reads_total{{reason="{reason}",server="{server}"}} 1.0' in page


def test_health(make_shop: MakeReplicated) -> None:
    """Each replica has a check of its own, which fails without making the service unhealthy."""
    shop = make_shop("health")
    check = next(
        one for one in shop.app.extensions["prod"].contributions["database"].checks if one.name == "replica-1"
    )
    assert not check.critical
    assert check.probe() is not None
    assert check.probe().status == "ok"

    shop.pair.to_replica.set("refuse")
    wait_for(lambda: is_out(shop, "cannot be reached"), 15, "the replica's leave")
    assert check.probe().status == "fail"


def test_a_forked_child(shop: Shop) -> None:
    """A child opens connections of its own, and watches for itself; its parent's go on."""
    assert shop.server(replica=True) == "replica"
    shop.prod.db.session.rollback()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with shop.app.app_context():
                first = shop.server(replica=True)
                shop.prod.db.session.rollback()
                wait_for(lambda: shop.known.is_in(monotonic()), 15, "the replica")
                os.write(writer, f"{first} {shop.server(replica=True)}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as said:
        assert said.read() == "primary replica"
    os.waitpid(child, 0)
    assert shop.server(replica=True) == "replica"


def test_the_end(shop: Shop) -> None:
    """Closing ends the watching threads."""
    shop.replication.close()

    names = {thread.name for thread in threading.enumerate() if thread.is_alive()}
    assert not {"flask-prod-replica-1", "flask-prod-primary", "flask-prod-replicas"} & names


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"DATABASE_REPLICA_URLS": "postgresql://b/c"}, "copies of a database that DATABASE_URL must name"),
        (
            {"DATABASE_URL": "postgresql://a/c", "DATABASE_REPLICA_URLS": "sqlite:///x.db"},
            "DATABASE_REPLICA_URLS names sqlite, and DATABASE_URL postgresql",
        ),
        (
            {"DATABASE_URL": "postgresql://a/c", "DATABASE_REPLICA_URLS": "secret word"},
            "DATABASE_REPLICA_URLS must be an address such as",
        ),
        (
            {
                "DATABASE_URL": "postgresql://a/c",
                "DATABASE_REPLICA_URLS": "postgresql://b/c",
                "DATABASE_REPLICA_MAX_LAG": "8s",
            },
            "DATABASE_STICKY_SECONDS must be at least 2.5 seconds more than DATABASE_REPLICA_MAX_LAG",
        ),
    ],
)
def test_settings(make_app: MakeApp, config: dict[str, str], said: str) -> None:
    """What cannot be meant is refused at the start."""
    with pytest.raises(ConfigError, match=said) as found:
        make_app(kit=ProdKit(only=["database"]), **config)
    assert "secret word" not in str(found.value)
