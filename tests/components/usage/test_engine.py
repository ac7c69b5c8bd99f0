"""Counting by route and caller: what is counted, what is bounded, what waits."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from flask_prod.components.usage import engine
from flask_prod.components.usage.engine import ANONYMOUS, CALLER, OTHER, ROUTE, Batch, Tally, clean, fold
from flask_prod.core.errors import Unavailable
from flask_prod.core.record import RequestRecord


class Shelf:
    """A store that keeps batches, or is away."""

    def __init__(self) -> None:
        self.away = False
        self.batches: list[Batch] = []
        self.lost: list[float] = []

    def add(self, batch: Batch) -> None:
        if self.away:
            raise Unavailable("away")
        self.batches.append(batch)

    @property
    def requests(self) -> float:
        """All requests that have arrived."""
        return sum(cell[0] for batch in self.batches for name, cell in batch.cells.items() if name[0] == ROUTE)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def tally(shelf: Shelf) -> Tally:
    return Tally(10, "X-API-Key", False, shelf.add, shelf.lost.append)


def ended(
    route: str | None = "/items", status: int = 200, user: str | None = None, environ: Mapping[str, str] = {}
) -> RequestRecord:
    """Return the record of a request that has ended."""
    base = {"REQUEST_METHOD": "GET", "wsgi.url_scheme": "http", "SERVER_NAME": "shop", "REMOTE_ADDR": "192.0.2.1"}
    record = RequestRecord({**base, **environ}, "id", 0.0)
    record.route, record.status, record.user_id = route, status, user
    record.bytes_sent, record.duration = 10, 0.5
    return record


def test_numbers(tally: Tally, shelf: Shelf) -> None:
    """Requests, errors, refusals, bytes and seconds are added up by route and caller."""
    for status in (200, 404, 429, 500, 503):
        tally.observe(ended(status=status, user="7"))
    broken = ended(user="7")  # a stream, in the middle
    broken.outcome = "crashed"
    tally.observe(broken)
    tally.close()

    assert shelf.batches[0].cells == {(ROUTE, "/items", "7"): [6, 3, 1, 60, 3.0]}


def test_probes(tally: Tally, shelf: Shelf) -> None:
    """Probes and scrapes are nobody's usage."""
    record = ended()
    record.operational = True
    tally.observe(record)
    tally.close()

    assert shelf.batches == []


def test_callers(tally: Tally, shelf: Shelf) -> None:
    """A caller is who the application says, else the signed-in user, else its key's fingerprint, else nobody."""
    key = {"HTTP_X_API_KEY": "a-secret-key"}
    for record in (
        ended(user="7", environ={CALLER: "partner", **key}), ended(user="7", environ=key), ended(environ=key),
        ended(), ended(status=401, environ=key), ended(environ={"HTTP_X_API_KEY": ""}),
    ):  # fmt: skip
        tally.observe(record)
    tally.close()

    sums = fold(shelf.batches[0].cells, ROUTE, "key")
    (fingerprint,) = (name for name in sums if name.startswith("key:"))
    assert {name: cell[0] for name, cell in sums.items()} == {"partner": 1, "7": 1, fingerprint: 1, ANONYMOUS: 3}
    assert "a-secret-key" not in str(shelf.batches)


def test_many_callers(tally: Tally, shelf: Shelf) -> None:
    """Beyond the bound callers are counted together, and no request is lost."""
    for number in range(1000):
        tally.observe(ended(user=str(number)))
    tally.close()

    assert len(shelf.batches[0].cells) == 11
    assert shelf.batches[0].cells[ROUTE, "/items", OTHER][0] == 990


def test_clients(shelf: Shelf) -> None:
    """Addresses are counted where that is asked for."""
    tally = Tally(10, "", True, shelf.add, shelf.lost.append)
    tally.observe(ended())
    tally.close()

    assert {name: cell[0] for name, cell in fold(shelf.batches[0].cells, "client", "client").items()} == {
        "192.0.2.1": 1
    }


def test_flush_waits_a_turn(tally: Tally, shelf: Shelf) -> None:
    """What a thread may still be adding to is handed on at the next flush only."""
    tally.observe(ended())
    tally.flush()
    assert shelf.requests == 0
    tally.flush()
    assert shelf.requests == 1


def test_store_away(tally: Tally, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches wait for a store that is away, so many and no more; what is given up is told."""
    monkeypatch.setattr(engine, "_MOST_WAITING", 3)
    shelf.away = True
    for _ in range(6):
        tally.observe(ended())
        tally.flush()
    assert sum(shelf.lost) == 2

    shelf.away = False
    tally.close()

    assert shelf.requests == 4


def test_hour(tally: Tally, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch belongs to the hour in which it was begun."""
    monkeypatch.setattr(engine, "time", lambda: 7200.0)
    tally.flush()
    tally.observe(ended())
    monkeypatch.setattr(engine, "time", lambda: 10800.0)
    tally.close()

    assert [batch.hour for batch in shelf.batches] == [2]


def test_clean() -> None:
    """A caller's name is one short line, whatever it is."""
    assert clean("a\r\nb\x1b[31m\u2028" + "c" * 500) == "a??b?[31m?" + "c" * 190
