"""The background: who asks, how soon a failure is known, and that a probe reads memory; clocks driven by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_prod.components.health import rounds as rounds_module
from flask_prod.components.health.board import Board
from flask_prod.components.health.engine import FAIL, OK, UNKNOWN, Engine, Plan, Rule, asking
from flask_prod.components.health.rounds import Rounds
from flask_prod.components.health.watchdog import Watchdog
from flask_prod.core.component import Check, Event, Finding
from flask_prod.core.ports import NoMeter


class World:
    """A clock, and threads that run when they are let; `down` is the state of the dependency."""

    def __init__(self) -> None:
        self.now = 100.0
        self.calls: list[float] = []
        self.down = False
        self.hangs = False
        self.hanging: list[Callable[[], None]] = []

    def clock(self) -> float:
        return self.now

    def spawn(self, call: Callable[[], None], _name: str) -> None:
        if self.hangs:
            self.calls.append(self.now)
            self.hanging.append(call)
        else:
            call()

    def probe(self) -> Finding | None:
        self.calls.append(self.now)
        if self.down:
            raise OSError("down")
        return None


class Worker:
    """One process: its engine and its rounds, moved by hand."""

    def __init__(self, world: World, folder: Path | None, *plans: Plan) -> None:
        self.events: list[Event] = []
        self.engine = Engine(
            lambda: plans, asking(nullcontext, str), 30, Rule(), clock=world.clock, spawn=world.spawn
        )
        self.engine.tell(self.events.append, NoMeter())
        self.board = Board(folder, lambda: "mark")
        self.signs: dict[str, Callable[[], bool]] = {}
        self.rounds = Rounds(self.engine, self.board, self.signs, Watchdog(self.board, self.events.append, 0))
        self.engine.background = True
        self.rounds._began = world.now

    def status(self, name: str = "it") -> str:
        return self.engine.glance().results[name][1].finding.status


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Give a world whose clock the rounds go by."""
    world = World()
    monkeypatch.setattr(rounds_module, "monotonic", world.clock)
    return world


@pytest.fixture
def workers(world: World, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Give a factory of workers of one host."""
    made: list[Worker] = []

    def make(*plans: Plan, folder: Path | None = tmp_path) -> Worker:
        made.append(Worker(world, folder, *(plans or (plan(world),))))
        return made[-1]

    yield make
    for worker in made:
        worker.board.leave()


def plan(world: World, name: str = "it", *, local: bool = False, **options: Any) -> Plan:
    """Build a plan with the default times."""
    return Plan(Check(name, world.probe, **options), 2.0, 5.0, local)


def pass_time(world: World, seconds: float, *workers: Worker, until: Callable[[], bool] = lambda: False) -> float:
    """Let every worker have a round each tenth of a second; return the seconds that passed."""
    began = world.now
    while world.now - began < seconds and not until():
        for worker in workers:
            worker.rounds.round()
        world.now = round(world.now + 0.1, 3)
    return world.now - began


def test_pace(world: World, workers: Callable[..., Worker]) -> None:
    """A check that is well is asked about every five seconds, by one of the workers of a host."""
    pass_time(world, 60, workers(), workers(), workers())

    assert 11 <= len(world.calls) <= 14


def test_bound(world: World, workers: Callable[..., Worker]) -> None:
    """In no ten seconds is a dependency asked more than twelve times, through its failure and return."""
    pair = workers(), workers()
    for world.down in (False, True, False):
        pass_time(world, 20, *pair)

    assert max(sum(start <= call < start + 10 for call in world.calls) for start in world.calls) <= 12


@pytest.mark.parametrize("hangs", [False, True])
def test_down_and_up(world: World, workers: Callable[..., Worker], hangs: bool) -> None:
    """A dependency that fails or hangs is down in every worker within 15 s, and up within 10 s of its return."""
    pair = workers(), workers()
    pass_time(world, 7, *pair)
    world.down, world.hangs = not hangs, hangs
    took = pass_time(world, 20, *pair, until=lambda: all(one.status() == FAIL for one in pair))
    pass_time(world, 20, *pair)
    world.down = world.hangs = False
    for call in world.hanging:
        call()
    back = pass_time(world, 20, *pair, until=lambda: all(one.status() == OK for one in pair))

    assert took <= 15
    assert back <= 10
    assert [event.fields["state"] for one in pair for event in one.events] == ["unhealthy", "healthy"]


def test_one_failure(world: World, workers: Callable[..., Worker]) -> None:
    """One failed answer changes nothing but what is told of it, and is looked into a second later."""
    worker = workers()
    pass_time(world, 1, worker)
    world.down = True
    pass_time(world, 10, worker, until=lambda: worker.engine.glance().results["it"][1].failures == 1)
    world.down = False

    assert worker.status() == OK
    assert worker.engine.glance().results["it"][1].error == "OSError: down"
    pass_time(world, 2, worker)
    assert world.calls[-1] - world.calls[-2] == pytest.approx(1, abs=0.2)
    assert not worker.events


def test_hung_for_good(world: World, workers: Callable[..., Worker]) -> None:
    """Of runs that never end there are three at most, and the check does not pass for well."""
    worker = workers()
    pass_time(world, 1, worker)
    world.hangs = True
    pass_time(world, 120, worker)

    assert len(world.hanging) == 3
    assert worker.status() == UNKNOWN
    assert worker.engine.glance().state == "unhealthy"


def test_leader_dies(world: World, workers: Callable[..., Worker]) -> None:
    """When the leader is gone another worker leads at once and knows what was known."""
    first, second = workers(), workers()
    world.down = True
    pass_time(world, 3, first, second)
    since = first.engine.glance().results["it"][1].since
    first.board.leave()
    world.down = False
    pass_time(world, 8, second)

    assert second.rounds.leads
    assert [event.fields["state"] for event in second.events] == ["healthy"]
    assert second.engine.teller.history[0].after == FAIL
    assert second.engine.teller.history[0].at == pytest.approx(since, abs=0.01)


def test_leader_is_silent(world: World, workers: Callable[..., Worker]) -> None:
    """A leader that is frozen with its place taken is not waited for: the others ask by themselves."""
    first, second = workers(), workers()
    pass_time(world, 1, first, second)
    world.down = True
    pass_time(world, 60, second)

    assert not second.rounds.leads
    assert second.status() == FAIL


def test_without_a_folder(world: World, workers: Callable[..., Worker]) -> None:
    """Where no run directory can be written each worker asks for itself."""
    pair = workers(folder=None), workers(folder=None)
    pass_time(world, 3, *pair)

    assert len(world.calls) == 2
    assert [one.status() for one in pair] == [OK, OK]


def test_local(world: World, workers: Callable[..., Worker]) -> None:
    """What is about this process is asked by each worker, and told to no other."""
    pair = [workers(plan(world, local=True)) for _ in range(2)]
    pass_time(world, 3, *pair)

    assert len(world.calls) == 2


def test_observed(world: World, workers: Callable[..., Worker]) -> None:
    """Failures that requests meet in any worker count: down within 5 s although no check was due."""
    first, second = workers(), workers()
    pass_time(world, 1, first, second)
    world.down = True

    def meet() -> bool:
        second.rounds._thread = threading.current_thread()  # as if it ran
        second.rounds.observed("it", "a request failed", False)
        second.rounds._thread = None
        return second.status() == FAIL

    assert pass_time(world, 10, first, second, until=meet) <= 3
    assert first.status() == FAIL
    assert len(first.events) == 1


def test_sign(world: World, workers: Callable[..., Worker]) -> None:
    """An open breaker is down at once, and counts once: what the check says afterwards holds."""
    worker = workers()
    pass_time(world, 1, worker)
    worker.signs["it"] = lambda: True
    worker.rounds.round()
    assert worker.status() == FAIL

    pass_time(world, 5, worker)
    assert worker.status() == OK


def test_nonsense(world: World, workers: Callable[..., Worker], tmp_path: Path) -> None:
    """What others may have written into the shared files is read with care."""
    first, second = workers(), workers()
    first.rounds.round()
    for name in ("json", "seen"):
        (tmp_path / f"health-mark.{name}").write_bytes(b'{"results": {"it": 7}}\n\xff\n[]\n')
    (tmp_path / "health-mark.1.beat").write_bytes(b"?")
    pass_time(world, 3, first, second)

    assert (first.status(), second.status()) == (OK, OK)
    assert list(second.board.others()) == []


def test_few_lines(world: World, workers: Callable[..., Worker]) -> None:
    """A check that flaps all the time is told of twice a minute at most, and the last word is the truth."""
    worker = workers()
    pass_time(world, 3, worker)
    for world.down in [True, False] * 8:
        pass_time(world, 12, worker)
    told = len(worker.events)
    pass_time(world, 70, worker)

    assert told <= 2 * (16 * 12 / 60 + 1)
    assert worker.events[-1].fields["state"] == "healthy"
    assert len(worker.engine.teller.history) == 16


@given(st.lists(st.tuples(st.sampled_from(["up", "down", "hang"]), st.integers(1, 120)), max_size=12))
@settings(deadline=None, max_examples=60)
def test_any_history(phases: list[tuple[str, int]]) -> None:
    """Whatever a dependency does, and for however long: after 20 s of one kind that is what is shown."""
    world = World()
    with pytest.MonkeyPatch.context() as monkeypatch:  # hypothesis and fixtures do not mix
        monkeypatch.setattr(rounds_module, "monotonic", world.clock)
        worker = Worker(world, None, plan(world))
        for kind, tenths in [*phases, ("up", 200)]:
            world.down, world.hangs = kind == "down", kind == "hang"
            if kind != "hang":
                for call in world.hanging:
                    call()
                world.hanging.clear()
            pass_time(world, tenths / 10, worker)
            assert len(world.hanging) <= 3
            if tenths == 200 or (kind == "down" and tenths >= 150):
                assert worker.status() == (OK if kind == "up" else FAIL)


def test_thread(tmp_path: Path) -> None:
    """Started, it runs by itself and a probe waits for nobody; stopped, nothing of it is left."""
    asked = threading.Event()

    def probe() -> None:
        asked.set()

    engine = Engine(lambda: [Plan(Check("it", probe), 2.0, 5.0)], asking(nullcontext, str), 30, Rule())
    board = Board(tmp_path, lambda: "mark")
    rounds = Rounds(engine, board, {}, Watchdog(board, lambda event: None, 60))
    before = set(threading.enumerate())
    rounds.start()
    rounds.start()

    assert asked.wait(5)
    assert engine.look().state == "healthy"
    assert [thread.name for thread in set(threading.enumerate()) - before].count("flask-prod-health") == 1
    rounds.stop()
    assert "flask-prod-health" not in [thread.name for thread in set(threading.enumerate()) - before]
    assert {path.name for path in tmp_path.iterdir()} == {"health-mark.lock"}
