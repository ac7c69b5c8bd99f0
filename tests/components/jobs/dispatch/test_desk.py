from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from rq.queue import Queue
from rq.serializers import JSONSerializer

from flask_prod.components.jobs.engine import Engine
from flask_prod.components.jobs.tasks.options import read_options
from flask_prod.components.jobs.tasks.task import Dispatcher
from flask_prod.core.errors import Unavailable
from tests import servers
from tests.apps import MakeApp

from ..orders import Colour, fragile, paint, plain, remind, seen, shop, sync


@pytest.fixture
def app(make_app: MakeApp, redis_url: str) -> Iterator[Flask]:
    """Give an application with these jobs, in its context."""
    app = make_app(kit=shop, REDIS_URL=redis_url, JOBS_PAYLOAD_LIMIT=1000)
    with app.app_context():
        yield app


def waiting(engine: Engine, queue: str = "default") -> int:
    return next(state.waiting for state in engine.overview() if state.queue == queue)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda job: job.dispatch(number="1"), "argument 'number' must be int, not str"),
        (lambda job: job.dispatch(price=1.5), r"argument 'price' must be .*Decimal.*, not float"),
        (lambda job: job.dispatch(names="abc"), r"argument 'names' must be list.*, not str"),
        (lambda job: job.dispatch(nmber=1), "got an unexpected keyword argument 'nmber'"),
        (lambda job: job.dispatch(free=Colour.RED), "argument 'free': Colour cannot be stored"),
    ],
)
def test_arguments_are_held_against_the_signature(
    app: Flask, engine: Engine, call: Callable[[Any], object], words: str
) -> None:
    """Wrong names, numbers and plain types are refused where the job is dispatched, by function and argument."""
    with pytest.raises(TypeError, match=words) as caught:
        call(plain)
    assert "orders." in str(caught.value)
    assert waiting(engine) == 0


def test_an_enum_of_another_kind(app: Flask) -> None:
    """Where the function asks for an enum, its value alone is refused."""
    untyped: Any = paint
    with pytest.raises(TypeError, match="argument 'colour' must be Colour, not str"):
        untyped.dispatch("red")


def test_plain_values_pass(app: Flask) -> None:
    """What fits an annotation passes: an int for a float, None where it is the default, anything for Any."""
    moment = datetime(2026, 3, 1, tzinfo=UTC)
    job = plain.dispatch(True, 1, Decimal("1.20"), date(2026, 3, 1), moment, UUID(int=7), ["a"], free={"b": b"c"})
    fetched = shop.jobs.fetch(job.id)
    assert fetched.args == [True, 1, Decimal("1.20"), date(2026, 3, 1), moment, UUID(int=7), ["a"]]
    assert fetched.kwargs == {"free": {"b": b"c"}}


def test_enums_come_back_as_themselves(app: Flask) -> None:
    """An enum that the function says it takes is stored by its value, and made again when the job runs."""
    job = paint.dispatch(Colour.RED, Colour.BLUE, "x", layers=2)
    fetched = shop.jobs.fetch(job.id)
    assert fetched.args == ["red", 7, "x"]
    seen.clear()
    fetched.perform()
    assert seen == [(Colour.RED, Colour.BLUE, ("x",), 2)]


def test_payload_limit(app: Flask, engine: Engine) -> None:
    """A job that is too large is refused by its name, its size and the limit; nothing is stored."""
    with pytest.raises(ValueError, match=r"orders\.plain: its arguments take 2,\d\d\d bytes, .*LIMIT is 1,000"):
        plain.dispatch(free="x" * 2000)
    assert waiting(engine) == 0


def test_payload_limit_at_the_edge(app: Flask) -> None:
    """The limit itself is allowed."""
    small = len(plain.dispatch(free="").data)
    assert len(plain.dispatch(free="x" * (1000 - small)).data) == 1000
    with pytest.raises(ValueError, match="take 1,001 bytes"):
        plain.dispatch(free="x" * (1001 - small))


def test_unknown_queue(app: Flask) -> None:
    """A queue that nobody serves is refused, with the one that was probably meant."""
    with pytest.raises(ValueError, match=r"no worker serves a queue 'pant'.*did you mean 'paint'"):
        plain.on("pant").dispatch()


def test_queue_of_the_settings(make_app: MakeApp, redis_url: str) -> None:
    """A queue of JOBS_QUEUES is known, also with a weight."""
    with make_app(kit=shop, REDIS_URL=redis_url, JOBS_QUEUES="high:3,default:1,paint:1").app_context():
        assert plain.on("high").dispatch().origin.endswith(":high")


@pytest.mark.parametrize("span", ["-5m", -1, "soon", float("inf"), timedelta(seconds=-1)])
def test_wrong_delay(span: Any) -> None:
    """A negative delay, or one that is none, is refused where it is written."""
    with pytest.raises(ValueError, match="delay is a duration"):
        plain.delay(span)


def test_at_in_the_past() -> None:
    """A moment that has passed is refused; one that passed within the last minute means now."""
    with pytest.raises(ValueError, match=r"2020-01-01.* is in the past"):
        plain.at(datetime(2020, 1, 1, tzinfo=UTC))
    plain.at(datetime.now(UTC) - timedelta(seconds=5))


def test_unique_by_arguments(app: Flask, engine: Engine) -> None:
    """While a unique job waits, another dispatch with the same arguments returns it, however they are written."""
    first = sync.dispatch(7)
    assert sync.dispatch(shop_id=7).id == first.id
    assert sync.dispatch(7, full=False).id == first.id
    assert sync.dispatch(7, True).id != first.id
    assert sync.dispatch(8).id != first.id
    assert waiting(engine) == 3


@pytest.mark.parametrize("status", ["finished", "failed", "canceled", "stopped"])
def test_unique_until_finished(app: Flask, engine: Engine, status: str) -> None:
    """A unique job holds its place while it runs and until it has ended, in whatever way."""
    first = sync.dispatch(7)
    client = engine.redis.client("jobs")
    client.hset(first.key, "status", "started")
    assert sync.dispatch(7).id == first.id
    client.hset(first.key, "status", status)
    assert sync.dispatch(7).id != first.id


def test_unique_until_gone(app: Flask, engine: Engine) -> None:
    """A job whose record is gone holds nothing, so that no crash can block a key for ever."""
    first = sync.dispatch(7)
    engine.redis.client("jobs").delete(first.key)
    assert sync.dispatch(7).id != first.id


def test_unique_until_started(app: Flask, engine: Engine) -> None:
    """With unique_until="started" a new one may be queued once the first has begun; a function gives the key."""
    first = remind.dispatch(7, text="a")
    assert remind.dispatch(7, text="b").id == first.id
    engine.redis.client("jobs").hset(first.key, "status", "started")
    assert remind.dispatch(7, text="b").id != first.id


def test_unique_expires(app: Flask, engine: Engine) -> None:
    """The claim of a unique job ends by itself."""
    remind.dispatch(7)
    client = engine.redis.client("jobs")
    (key,) = client.keys("*jobs:unique:*")
    assert 3_500_000 < client.pttl(key) <= 3_600_000


def test_unique_under_contention(app: Flask, engine: Engine) -> None:
    """Of many dispatches at the same moment, one is accepted."""
    from concurrent.futures import ThreadPoolExecutor

    def one(_: int) -> str:
        with app.app_context():
            return sync.dispatch(9).id

    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(one, range(64)))
    assert len(ids) == 1
    assert waiting(engine) == 1


def test_priority(app: Flask, engine: Engine) -> None:
    """priority="high" goes to the front of the queue."""
    ids = [plain.dispatch().id, plain.dispatch().id, plain.priority("high").dispatch().id]
    assert engine.queue("default").job_ids == [ids[2], ids[0], ids[1]]


def test_chained(app: Flask, engine: Engine) -> None:
    """All that configures a dispatch can be chained, in any order, and leaves the job as it was."""
    job = plain.on("paint").tagged("vip").delay("5m").retry(5).in_group("import").dispatch(1)
    assert (engine.short(job.origin), job.retries_left, job.get_status().value) == ("paint", 5, "scheduled")
    assert job.meta["tags"] == ["vip"]
    assert [one.id for one in shop.jobs.group("import")] == [job.id]
    assert plain.options.queue == "default"


def test_many(app: Flask, engine: Engine) -> None:
    """dispatch_many keeps the order and takes names or positions; all go in few round trips."""
    client = engine.redis.client("request")
    plain.dispatch()
    before = client.info("commandstats")
    jobs = plain.dispatch_many([{"number": 1}, (2,), *({"number": n} for n in range(3, 451))])
    after = client.info("commandstats")
    queued = engine.queue("default").job_ids[1:]
    assert [job.id for job in jobs] == queued
    assert len(queued) == 450
    assert after["cmdstat_evalsha"]["calls"] - before["cmdstat_evalsha"]["calls"] == 450
    assert shop.jobs.fetch(jobs[1].id).args == [2]


def test_many_with_one_wrong(app: Flask, engine: Engine) -> None:
    """One wrong call among many means that none is queued."""
    with pytest.raises(TypeError, match="must be int"):
        plain.dispatch_many([{"number": 1}, {"number": "2"}])
    assert waiting(engine) == 0
    assert plain.dispatch_many([]) == []


def test_many_to_a_fresh_server(make_app: MakeApp, valkey: servers.Valkey) -> None:
    """The first batch reaches a server that has never seen the script, and one that has forgotten it."""
    with make_app(kit=shop, REDIS_URL=valkey.url).app_context():
        assert len(plain.dispatch_many([{}, {}])) == 2
        valkey.kill()
        with pytest.raises(Unavailable, match="0 of 2 jobs were accepted"):
            plain.dispatch_many([{}, {}])


def test_after_others(app: Flask, engine: Engine) -> None:
    """A job that runs after others is deferred as RQ has it, and queued at once when all of them are finished."""
    first, second = plain.dispatch(), plain.dispatch()
    waits = plain.after(first, second.id).dispatch()
    queue = engine.queue("default")
    assert waits.id in queue.deferred_job_registry.get_job_ids()
    assert waits.id not in queue.job_ids
    assert sorted(shop.jobs.fetch(waits.id).dependency_ids) == sorted((first.id, second.id))

    for job in (first, second):
        engine.redis.client("jobs").hset(job.key, "status", "finished")
        queue.enqueue_dependents(shop.jobs.fetch(job.id))
    assert waits.id in queue.job_ids
    assert plain.after(first).dispatch().id in queue.job_ids


def test_after_what_is_gone(app: Flask) -> None:
    """A job that should run after one that is not known is refused, by that one's id."""
    with pytest.raises(ValueError, match="there is no job 'gone' to run after"):
        plain.after("gone").dispatch()
    with pytest.raises(ValueError, match="cannot have a time"):
        plain.after("gone").delay(5).dispatch()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"unique": "all"}, "unique is True or a function"),
        ({"unique_for": "1h"}, "need unique=True"),
        ({"unique": True, "unique_until": "later"}, "finished or started"),
        ({"unique": True, "unique_for": 0}, "unique_for must be"),
        ({"priority": "low"}, "priority is normal or high"),
        ({"tags": ["a b"]}, "tags are names"),
        ({"retries": 3}, "no option retries"),
        ({"never": "ValueError"}, "never takes exception classes"),
        ({"timeout": "soon"}, "timeout is a duration"),
    ],
)
def test_wrong_options(options: dict[str, Any], words: str) -> None:
    """Options that make no sense are refused where they are written."""
    with pytest.raises((TypeError, ValueError), match=words):
        shop.jobs.job(**options)


def test_rules_reach_the_worker(app: Flask) -> None:
    """An exception of `never` leaves no further attempt, whatever retries are left."""
    from flask_prod.components.jobs.tasks.retries import next_attempt

    job = shop.jobs.fetch(fragile.dispatch().id)
    assert next_attempt(job, OSError()) is not None
    assert next_attempt(job, ValueError()) is None


def test_limit_has_a_key(app: Flask) -> None:
    """A limit counts by its key, or by the job's name, and not with the keys of other services."""
    named = plain.limited("bank", 3).dispatch()
    unnamed = Dispatcher(plain, read_options({"limit": 2})).dispatch()
    assert (named.rate_limit_key, named.rate_limit_concurrency) == ("shop:test:limit:bank", 3)
    assert (unnamed.rate_limit_key, unnamed.rate_limit_concurrency) == (f"shop:test:limit:{plain.name}", 2)


def test_dispatch_is_quick(app: Flask) -> None:
    """A dispatch takes no longer than RQ's own enqueue on the same queue."""
    queue = shop.jobs.queue("default")
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(200):
        began = time.perf_counter()
        plain.dispatch(1)
        between = time.perf_counter()
        queue.enqueue(plain, 1)
        ours.append(between - began)
        theirs.append(time.perf_counter() - between)
    assert sorted(ours)[50] < sorted(theirs)[50] * 1.1


@pytest.mark.alone
def test_dispatch_many_is_quick(app: Flask, engine: Engine) -> None:
    """Jobs dispatched at once cost this process no more than a plain RQ queue's enqueue_many."""
    stock = Queue("stock", connection=engine.redis.client("jobs"), serializer=JSONSerializer)
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(30):
        began = time.process_time()
        plain.dispatch_many([{"number": 1}] * 50)
        between = time.process_time()
        stock.enqueue_many([stock.prepare_data(plain.name, kwargs={"number": 1}) for _ in range(50)])
        ours.append(between - began)
        theirs.append(time.process_time() - between)
    assert sorted(ours)[7] < sorted(theirs)[7]
