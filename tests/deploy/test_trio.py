"""The component `redis` runs: a primary is lost, another takes over, and the service follows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_prod.components.redis import RedisHandle, RedisSettings
from flask_prod.core.errors import Unavailable
from flask_prod.core.ports import NoMeter
from flask_prod.core.values import SecretUrl

from .conftest import ROOT
from .trio import Trio, seconds_until

FILES = ROOT / "deploy/kubernetes/components/redis"

pytestmark = pytest.mark.deploy


@pytest.fixture
def trio(tmp_path: Path) -> Iterator[Trio]:
    """Run all three."""
    with Trio(FILES, tmp_path / "trio", "shop") as running:
        yield running


def works(handle: RedisHandle) -> bool:
    """Say whether the service can write."""
    try:
        return bool(handle.ask("SET", "works", 1) == b"OK")
    except Unavailable:
        return False


def test_the_service_follows_the_primary(trio: Trio) -> None:
    """A lost primary is replaced within 15 s and comes back as a replica; one that is stopped hands over before.

    When all were away, they go on as they were. Nothing that was written before is lost, and the service's own
    client is told nothing: it asks the sentinels.
    """
    handle = RedisHandle(
        RedisSettings(url=SecretUrl(trio.url("shop"))), "shop:production", NoMeter(), lambda _: None
    )
    try:
        lost = trio.primary
        assert lost is trio.pods[0]  # the first of the three at the very first start
        assert works(handle)
        handle.ask("SET", "order", "42")

        lost.kill()
        away = seconds_until(lambda: works(handle), 15, "a primary that takes writes")
        heir = trio.primary
        assert heir is not lost
        assert handle.ask("GET", "order") == b"42"

        lost.start()
        seconds_until(lambda: lost.role == "slave" and trio.whole(), 30, "the lost one as a replica")

        handle.ask("SET", "order", "43")
        begun = time.monotonic()
        done = heir.hand_over()
        took = time.monotonic() - begun
        again = seconds_until(lambda: works(handle), 10, "the one after it")
        assert done.returncode == 0, done.stderr
        assert heir.role == "slave"
        assert handle.ask("GET", "order") == b"43"
        assert took < away  # ten seconds, and two primaries meanwhile, where it is not coordinated
        assert again < 5 < away < 15  # nobody had to miss it first

        last = trio.primary
        for pod in trio.pods:
            pod.kill()
        for pod in trio.pods:
            pod.start()
        seconds_until(trio.whole, 30, "all of them after all were away")
        switched = any("+switch-master" in pod.processes["sentinel"].stdout for pod in trio.pods)
        assert (
            trio.primary is last or switched
        )  # on a machine with too much to do they may miss it, and choose anew
        seconds_until(lambda: works(handle), 10, "a write")
        assert handle.ask("GET", "order") == b"43"
    finally:
        handle.close()
