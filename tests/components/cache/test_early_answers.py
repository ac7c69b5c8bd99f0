"""What is kept ready of a public page's answer, and what never is: origins, settings, age, the end of its body."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from flask_prod.components.cache.entry import Entry
from flask_prod.components.cache.memory import MemoryStore
from flask_prod.components.cors.settings import CorsSettings
from flask_prod.core.component import Contribution
from flask_prod.core.kit import state_of
from tests.apps import MakeApp

from .test_early import HOST, Shop

A, B = "https://a.example", "https://b.example"


def environ_of(shop: Shop, **more: Any) -> dict[str, Any]:
    with shop.app.test_request_context("/p/tea", base_url=HOST) as context:
        return {**context.request.environ, **more}


def served(shop: Shop, chunks: int) -> list[Any]:
    """Serve one hit to a client that takes so many chunks; return the records of the requests that ended."""
    records: list[Any] = []
    pipeline = state_of(shop.app).pipeline
    pipeline.observers = (lambda record: records.append(record),)
    body = shop.app.wsgi_app(environ_of(shop), lambda *_: bytes)
    chunk = iter(body)
    for _ in range(chunks):
        next(chunk, None)
    body.close()  # type: ignore[attr-defined]  # the pass gives it
    body.close()  # type: ignore[attr-defined]
    return records


@pytest.mark.parametrize(
    ("chunks", "outcome", "sent"),
    [(0, "aborted", 0), (1, "aborted", 5), (2, "ok", 5)],
    ids=["none", "body", "end"],
)
def test_end_of_a_hit(make_app: MakeApp, chunks: int, outcome: str, sent: int) -> None:
    """A client that leaves before the end is told from one that took all, and each request ends once."""
    shop = Shop(make_app)
    shop.warm()

    (record,) = served(shop, chunks)

    assert (record.outcome, record.bytes_sent, record.status) == (outcome, sent, 200)


def test_origin_that_is_not_allowed(make_app: MakeApp) -> None:
    """Each hit for a stranger's script is counted, although what its answer says is known."""
    shop = Shop(make_app, ALLOWED_ORIGINS=[A])
    shop.warm(headers={"Origin": A})

    for _ in range(3):
        assert "Access-Control-Allow-Origin" not in shop.get(headers={"Origin": B}).headers
    assert "flask_prod_cors_origins_refused_total 3.0" in shop.get("/metrics").text


def test_changed_settings_hold_for_hits(make_app: MakeApp) -> None:
    """An origin that is taken off the list is told nothing any more, also of a page that it had before."""
    shop = Shop(make_app, ALLOWED_ORIGINS=[A, B])
    shop.warm()
    assert shop.get(headers={"Origin": B}).headers["Access-Control-Allow-Origin"] == B
    state = state_of(shop.app)
    cors: Contribution[Any] = state.contributions["cors"]
    assert cors.reload is not None

    cors.reload(CorsSettings(origins=(A,)))()
    state.pipeline.renew()

    assert "Access-Control-Allow-Origin" not in shop.get(headers={"Origin": B}).headers
    assert shop.get(headers={"Origin": A}).headers["Access-Control-Allow-Origin"] == A


def test_age_goes_on(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Age and the time that is left are those of each answer, second by second, and when the clock is set back."""
    shop = Shop(make_app, CACHE_JITTER=0, CACHE_EARLY=0)
    shop.warm()
    store = state_of(shop.app).contributions["cache"].handle.store
    created = next(iter(store._entries.values()))[0].created

    def at(seconds: float) -> tuple[str, str]:
        monkeypatch.setattr("flask_prod.components.cache.early.time", lambda: created + seconds)
        headers = shop.get().headers
        return headers["Age"], headers["Cache-Status"].rpartition("ttl=")[2]

    assert [at(s) for s in (0.25, 0.75, 1.25, 41.5, 59.5, 2.5)] == [
        ("0", "59"), ("0", "59"), ("1", "58"), ("41", "18"), ("59", "0"), ("2", "57"),
    ]  # fmt: skip


def test_get_and_head_are_told_apart(make_app: MakeApp) -> None:
    """One stored page answers both; only GET gets its body, whichever was first."""
    shop = Shop(make_app)
    shop.warm()
    shop.warm(method="HEAD")

    answers = [shop.get(method=method) for method in ("HEAD", "GET", "HEAD")]

    assert [one.data for one in answers] == [b"", b"run 1", b""]
    assert [one.content_length for one in answers] == [5, 5, 5]


def test_hit_that_cannot_begin(make_app: MakeApp) -> None:
    """Where the server refuses the head of a stored page, the error's page goes out and the record says so."""
    shop = Shop(make_app)
    shop.warm()
    shop.app.testing = False
    shop.app.debug = False
    begun: list[tuple[str, bool]] = []

    def start_response(status: str, _headers: Any, exc_info: Any = None) -> Any:
        begun.append((status, exc_info is not None))
        if len(begun) == 1:
            raise ValueError("a header that the server does not like")

    body = shop.app.wsgi_app(environ_of(shop), start_response)
    text = b"".join(body)
    body.close()  # type: ignore[attr-defined]  # the pass gives it

    assert begun == [("200 OK", False), ("500 INTERNAL SERVER ERROR", True)]
    assert text != b"run 1"


def test_limit_of_a_route_that_is_known(make_app: MakeApp) -> None:
    """Each client has his own count, however many hits went before, and a changed method another one."""
    shop = Shop(make_app, RATE_LIMIT_PUBLIC=6)
    shop.warm()

    mine = [shop.get().status_code for _ in range(6)]
    others = [shop.get(environ_base={"REMOTE_ADDR": "203.0.113.7"}).status_code for _ in range(7)]

    assert mine == [200] * 4 + [429] * 2
    assert others == [200] * 6 + [429]


def test_memory_is_read_while_it_is_full() -> None:
    """Readers need no lock: while others push entries out, each gets the right one or none, and nothing fails."""
    store = MemoryStore(1 << 30, 32)
    stop = threading.Event()
    wrong: list[object] = []

    def read(number: int) -> None:
        while not stop.is_set():
            for one in range(64):
                try:
                    found = store.get(f"{one}")
                except Exception as error:
                    wrong.append(error)
                    return
                if found is not None and found.payload != b"%d" % one:
                    wrong.append((number, one, found))

    threads = [threading.Thread(target=read, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(3000):
        one = turn % 64
        marks = store.board.marks(f"{one}")
        store.hold(f"{one}", Entry(b"p", b"%d" % one, tier="memory"), marks)
    stop.set()
    for thread in threads:
        thread.join(10)

    assert wrong == []
    assert len(store._entries) == 32
    assert store.bytes == sum(len(k) + len(e.payload) + 400 for k, (e, _) in store._entries.items())
