"""Sentinel, cluster, TLS, users and sockets, each with real servers."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_prod import ProdKit
from flask_prod.components.redis import RedisHandle, RedisSettings
from flask_prod.core.component import Event
from flask_prod.core.errors import NotInstalled, Unavailable
from flask_prod.core.ports import NoMeter
from flask_prod.core.values import Secret, SecretUrl
from tests.apps import MakeApp, StartValkey
from tests.deployments import Cluster, Sentinels, TlsFront
from tests.servers import HOST, Valkey, free_port, wait_for

from .test_listener import Ear


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def make_handle(events: list[Event]) -> Iterator[Callable[..., RedisHandle]]:
    handles: list[RedisHandle] = []

    def make(url: str, **settings: Any) -> RedisHandle:
        handles.append(
            RedisHandle(RedisSettings(url=SecretUrl(url), **settings), "shop:test", NoMeter(), events.append)
        )
        return handles[-1]

    yield make
    for handle in handles:
        handle.close()


MakeHandle = Callable[..., RedisHandle]


@pytest.fixture
def sentinels() -> Iterator[Sentinels]:
    with Sentinels() as deployment:
        yield deployment


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as deployment:
        yield deployment


@pytest.fixture
def tls(shared_valkey: Valkey, tmp_path: Path) -> Iterator[TlsFront]:
    with TlsFront(shared_valkey.port, tmp_path) as front:
        yield front


def works(handle: RedisHandle) -> bool:
    """Say whether a write and its reading are answered."""
    try:
        handle.ask("SET", "works", 1)
        return bool(handle.ask("GET", "works") == b"1")
    except Unavailable:
        return False


def test_sentinel_in_order(make_handle: MakeHandle, sentinels: Sentinels) -> None:
    """Every purpose finds the primary; after an orderly failover all go on with the new one."""
    handle = make_handle(sentinels.url)
    handle.start()
    assert works(handle)
    assert handle.attempt(lambda client: client.get("works")) == b"1"
    for purpose in ("jobs", "blocking", "locks"):
        assert handle.client(purpose).get("works") == b"1"

    sentinels.fail_over()
    began = time.monotonic()
    wait_for(lambda: works(handle), 3, "the new primary")
    assert time.monotonic() - began < 3
    assert sentinels.replica.command("GET", "works") == b"$1"
    assert handle.client("jobs").set("jobs", 1)


@pytest.mark.alone
def test_sentinel_when_the_primary_dies(
    make_handle: MakeHandle, sentinels: Sentinels, events: list[Event]
) -> None:
    """A primary that is killed costs no call 300 ms; 3 s after the sentinels have chosen, the new one serves."""
    handle = make_handle(sentinels.url)
    handle.start()
    assert works(handle)
    sentinels.primary.kill()
    stop, spent = threading.Event(), []

    def come() -> None:
        while not stop.is_set():
            began = time.monotonic()
            works(handle)
            spent.append(time.monotonic() - began)
            time.sleep(0.005)

    thread = threading.Thread(target=come)
    thread.start()
    try:
        sentinels.wait_for_primary(sentinels.replica.port)
        wait_for(lambda: works(handle) and not handle.degraded, 3, "the new primary")
    finally:
        stop.set()
        thread.join()
    assert max(spent) < 0.4
    assert [event.name for event in events] == ["prod.redis.degraded", "prod.redis.recovered"]


def test_sentinel_demotion_without_a_word(make_handle: MakeHandle, sentinels: Sentinels) -> None:
    """A primary that becomes a replica with its connections open: one refusal, then the right one."""
    handle = make_handle(sentinels.url)
    assert works(handle)
    sentinels.fail_over()
    # What happens to those that connected to the old one a moment too late.
    client: Any = handle.client()
    client.connection_pool.disconnect()
    client.connection_pool.connection_kwargs["finder"]._known = (HOST, sentinels.primary.port)
    # The sentinels do this too, some seconds later.
    sentinels.primary.command("REPLICAOF", HOST, str(sentinels.replica.port))

    assert [works(handle) for _ in range(3)] == [False, True, True]


@pytest.mark.alone
def test_no_sentinel_answers(make_handle: MakeHandle) -> None:
    """With all sentinels away a start takes no second, and calls cost nothing afterwards."""
    hosts = ",".join(f"{HOST}:{free_port()}" for _ in range(3))
    handle = make_handle(f"redis+sentinel://{hosts}/shop")
    began = time.monotonic()
    handle.start()
    assert handle.degraded
    assert not works(handle)
    assert time.monotonic() - began < 0.5


def test_a_fork_under_sentinel(make_handle: MakeHandle, sentinels: Sentinels) -> None:
    """A child has connections of its own, to the primary and to the sentinels."""
    handle = make_handle(sentinels.url)
    mine = handle.ask("CLIENT", "ID")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            handle.after_fork()
            code = 0 if handle.ask("CLIENT", "ID") != mine and works(handle) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert handle.ask("CLIENT", "ID") == mine


def test_a_cluster_serves_every_key(make_handle: MakeHandle, cluster: Cluster) -> None:
    """Raw commands, pipelines, locks, scripts and redis-py's own calls reach the node of their key."""
    handle = make_handle(cluster.url)
    handle.start()
    keys = [f"k{n}" for n in range(50)]
    assert handle.pipeline([("SET", key, key) for key in keys]) == [b"OK"] * 50
    assert [handle.ask("GET", key) for key in keys] == [key.encode() for key in keys]
    assert {cluster.node_of(key).port for key in keys} == {node.port for node in cluster.nodes}
    assert handle.attempt(lambda client: client.get("k1")) == b"k1"
    assert handle.ask("EVAL", "return redis.call('get', KEYS[1])", 1, "k2") == b"k2"
    assert handle.attempt(lambda client: sum(1 for _ in client.scan_iter("k*"))) == 50

    assert handle.ask("MGET", *keys[:3], "none") == [b"k0", b"k1", b"k2", None]
    assert handle.ask("EXISTS", *keys) == 50
    assert sorted(scanned(handle, "k*")) == sorted(key.encode() for key in keys)
    assert handle.ask("UNLINK", *keys) == 50
    assert scanned(handle, "k*") == []

    token = handle.lock("report", 5)
    assert token
    assert handle.lock("report", 5) is None
    assert handle.unlock("report", token)
    with pytest.raises(NotInstalled, match="RQ"):
        handle.client("jobs")


def scanned(handle: RedisHandle, pattern: str) -> list[bytes]:
    """Return the keys that SCAN finds, few at a time."""
    cursor, found = b"0", []
    for _ in range(1000):
        cursor, names = handle.ask("SCAN", cursor, "MATCH", pattern, "COUNT", 5)
        found += names
        if cursor == b"0":
            return found
    raise AssertionError("an endless scan")


@pytest.mark.parametrize("kind", ["cluster", "sentinels"])
def test_the_kit(make_app: MakeApp, request: pytest.FixtureRequest, kind: str) -> None:
    """Limits, cache and health work on every kind of deployment, with all of it in Redis."""
    deployment: Cluster | Sentinels = request.getfixturevalue(kind)
    prod = ProdKit()
    app = make_app(kit=prod, REDIS_URL=deployment.url, HEALTH_TOKEN="t")
    app.add_url_rule("/", "home", prod.limit("few", "3/1m")(prod.cache.cached(ttl="1m")(lambda: "home")))
    app.add_url_rule("/library", "library", prod.limiter.limit("3/minute")(lambda: "library"))
    client = app.test_client()

    assert [client.get("/").status_code for _ in range(4)] == [200] * 3 + [429]
    assert [client.get("/library").status_code for _ in range(4)] == [200] * 3 + [429]
    with app.app_context():
        prod.cache.set("a", {"b": 1})
        assert prod.cache.get("a") == {"b": 1}
        assert prod.cache.get_many("a", "none") == [{"b": 1}, None]
        assert prod.cache.delete("a")
        assert prod.cache.clear()
    handle = app.extensions["prod"].contributions["redis"].handle
    assert (handle.cause, handle.degraded) == ("", False)


def test_a_moved_slot(make_handle: MakeHandle, cluster: Cluster) -> None:
    """A slot that another node has by now is followed, for one command and for many."""
    handle = make_handle(cluster.url)
    handle.start()
    first, second, _ = cluster.nodes
    slot = next(n for n in range(1000) if cluster.node_of(f"m{n}") is first)
    key = f"m{slot}"
    import redis.crc

    number = str(redis.crc.key_slot(key.encode()))
    ids = {node: _id(node) for node in cluster.nodes}
    second.command("CLUSTER", "SETSLOT", number, "IMPORTING", ids[first])
    first.command("CLUSTER", "SETSLOT", number, "MIGRATING", ids[second])
    assert handle.ask("SET", key, 1) == b"OK"  # ASK: it is being moved

    for node in cluster.nodes:
        node.command("CLUSTER", "SETSLOT", number, "NODE", ids[second])
    assert handle.pipeline([("GET", key), ("GET", "other")]) == [b"1", None]  # MOVED


def _id(node: Valkey) -> str:
    import redis

    with redis.Redis(port=node.port) as client:
        return bytes(client.execute_command("CLUSTER MYID")).decode()


@pytest.mark.alone
def test_one_node_of_a_cluster_is_away(make_handle: MakeHandle, cluster: Cluster, events: list[Event]) -> None:
    """The keys of the others are served all the while; those of the dead one cost nothing after three calls."""
    handle = make_handle(cluster.url)
    handle.start()
    dead = cluster.nodes[0]
    here = next(f"k{n}" for n in range(100) if cluster.node_of(f"k{n}") is dead)
    there = next(f"k{n}" for n in range(100) if cluster.node_of(f"k{n}") is not dead)
    dead.pause()
    spent = []
    for _ in range(40):
        began = time.monotonic()
        with pytest.raises(Unavailable):
            handle.ask("GET", here)
        spent.append(time.monotonic() - began)
        handle.ask("SET", there, 1)
    assert max(spent) < 0.3
    assert sum(spent) < 0.6
    assert handle.degraded

    dead.resume()

    def answers() -> bool:
        try:
            handle.ask("SET", here, 1)
        except Unavailable:
            return False
        return not handle.degraded

    wait_for(answers, 5, "the node's return")
    assert [event.name for event in events] == ["prod.redis.degraded", "prod.redis.recovered"]
    assert f"node {HOST}:{dead.port}" in events[0].message


@pytest.mark.alone
def test_no_node_of_a_cluster_answers(make_handle: MakeHandle) -> None:
    """The application starts, and calls cost nothing."""
    handle = make_handle(f"redis+cluster://{HOST}:{free_port()},{HOST}:{free_port()}")
    began = time.monotonic()
    handle.start()
    assert handle.degraded
    assert not works(handle)
    assert time.monotonic() - began < 0.5


def test_messages_in_a_cluster(make_handle: MakeHandle, cluster: Cluster) -> None:
    """What is published on one node is heard on every other; changes of keys are not, and that is said."""
    ear = Ear()
    handle = make_handle(cluster.url)
    handle.start()
    listeners = [handle.listen("news", ear.hear, ear.lose) for _ in range(3)]
    wait_for(lambda: all(listener.live for listener in listeners), 5, "listeners")
    handle.ask("PUBLISH", "news", "1")
    wait_for(lambda: len(ear.heard) == 3, 3, "messages")

    assert not handle.watchable
    with pytest.raises(NotInstalled, match="listen"):
        handle.watch("a", ear.hear, ear.lose)


def test_a_fork_in_a_cluster(make_handle: MakeHandle, cluster: Cluster) -> None:
    """A child talks by connections of its own; the parent's go on."""
    handle = make_handle(cluster.url)
    handle.start()
    mine = handle.ask("EVAL", "return {redis.call('get', KEYS[1])}", 1, "k")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            handle.after_fork()
            code = 0 if all(handle.ask("ECHO", f"child{n}") == f"child{n}".encode() for n in range(100)) else 2
        finally:
            os._exit(code)
    right = all(handle.ask("ECHO", f"parent{n}") == f"parent{n}".encode() for n in range(100))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert right
    assert mine == [None]


def test_tls(make_handle: MakeHandle, tls: TlsFront) -> None:
    """With authority, certificate and key a connection is made, for raw commands and for redis-py's."""
    files = {"tls_ca": str(tls.authority), "tls_cert": str(tls.certificate), "tls_key": str(tls.key)}
    handle = make_handle(f"rediss://{HOST}:{tls.port}/0", connect_timeout=2.0, read_timeout=2.0, **files)
    assert works(handle)
    assert handle.attempt(lambda client: client.get("works")) == b"1"
    assert handle.client("locks").ping()
    text = make_handle(
        f"rediss://{HOST}:{tls.port}/0", connect_timeout=2.0, **{**files, "tls_ca": tls.authority.read_text()}
    )
    assert works(text)


@pytest.mark.parametrize("missing", ["tls_ca", "tls_cert"])
def test_tls_without_trust(make_handle: MakeHandle, tls: TlsFront, missing: str) -> None:
    """A server whose authority is unknown, or that asks for a certificate we lack, is not talked to."""
    files = {"tls_ca": str(tls.authority), "tls_cert": str(tls.certificate), "tls_key": str(tls.key)}
    del files[missing]
    if missing == "tls_cert":
        del files["tls_key"]
    handle = make_handle(f"rediss://{HOST}:{tls.port}/0", connect_timeout=2.0, read_timeout=2.0, **files)
    assert not works(handle)


def test_tls_for_another_host(make_handle: MakeHandle, shared_valkey: Valkey, tmp_path: Path) -> None:
    """A certificate of another name is refused although its authority is known."""
    with TlsFront(shared_valkey.port, tmp_path, host="other.test") as front:
        files = {"tls_ca": str(front.authority), "tls_cert": str(front.certificate), "tls_key": str(front.key)}
        handle = make_handle(f"rediss://{HOST}:{front.port}/0", connect_timeout=2.0, **files)
        assert not works(handle)


def test_a_user_with_rights_in_its_namespace(make_handle: MakeHandle, start_valkey: StartValkey) -> None:
    """A user who may only what the kit does serves; a wrong password does not, and is told of without a secret."""
    rules = ("on", ">hunter2", "~shop:test:*", "&*", "+@all", "-@dangerous", "-@admin")
    server = start_valkey(args=["--bind", HOST, "--enable-debug-command", "no"])
    server.command("ACL", "SETUSER", "shop", *rules)
    handle = make_handle(server.url, username="shop", password=Secret("hunter2"))
    handle.start()
    assert not handle.degraded
    handle.ask("SET", "shop:test:a", 1)
    with pytest.raises(Unavailable):
        handle.ask("SET", "elsewhere", 1)

    events: list[Event] = []
    wrong = RedisHandle(
        RedisSettings(url=SecretUrl(server.url.replace("//", "//shop:hunter3@"))), "a", NoMeter(), events.append
    )
    wrong.start()
    wrong.close()
    assert wrong.degraded
    assert "hunter" not in str(events)


def test_a_socket(make_handle: MakeHandle, start_valkey: StartValkey, tmp_path: Path) -> None:
    """unix:// reaches a server without a port."""
    path = tmp_path / "s"
    start_valkey(args=["--unixsocket", str(path)])
    handle = make_handle(f"unix://{path}?db=3")
    assert works(handle)
    assert handle.client("jobs").ping()
