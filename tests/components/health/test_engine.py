"""The engine alone: parallel, in time, once at a time, and told in one word."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from flask_prod.components.health.engine import FAIL, OK, Engine, Plan, asking, judge
from flask_prod.core.component import Check, Event, Finding
from flask_prod.core.ports import NoMeter


class Dependency:
    """Something to ask: counts the questions, and may hang, fail or talk nonsense."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer: Any = None
        self.error: BaseException | None = None
        self.open = threading.Event()
        self.open.set()

    def __call__(self) -> Finding | None:
        self.asked += 1
        self.open.wait(10)
        if self.error is not None:
            raise self.error
        return self.answer  # type: ignore[no-any-return]


@pytest.fixture
def dependency() -> Iterator[Dependency]:
    """Give a dependency that is let go at the end."""
    one = Dependency()
    yield one
    one.open.set()


def engine(*plans: Plan, stale_after: float = 30) -> Engine:
    """Build an engine over these plans."""
    return Engine(lambda: plans, asking(nullcontext, str), stale_after)


def plan(probe: Callable[[], Finding | None], name: str = "it", **options: Any) -> Plan:
    """Build a plan that keeps results for a minute and gives a check 0.2 s."""
    timeout, interval = options.pop("timeout", 0.2), options.pop("interval", 60)
    return Plan(Check(name, probe, **options), timeout, interval)


def status(engine: Engine, name: str = "it") -> str:
    """Look, and return the status of one check."""
    return engine.look().results[name][1].finding.status


def test_states() -> None:
    """A critical failure is unhealthy, any other failure or warning degraded, all else healthy."""

    def down() -> Finding | None:
        raise OSError

    warn = plan(lambda: Finding("warn"), "warn")
    assert engine().look().state == "healthy"
    assert engine(plan(lambda: None)).look().state == "healthy"
    assert engine(plan(lambda: None), warn).look().state == "degraded"
    assert engine(plan(down, critical=False), warn).look().state == "degraded"
    assert engine(plan(down), warn, plan(lambda: None, "fine")).look().state == "unhealthy"


@pytest.mark.alone
def test_parallel() -> None:
    """Ten checks of 0.1 s take little more than one of them."""
    slow = [plan(lambda: time.sleep(0.1), f"c{number}", timeout=2) for number in range(10)]
    began = time.monotonic()

    assert engine(*slow).look().state == "healthy"
    assert time.monotonic() - began < 0.5


def test_kept(dependency: Dependency) -> None:
    """A thousand probes within the interval ask the dependency once."""
    whole = engine(plan(dependency))

    for _ in range(1000):
        whole.look()

    assert dependency.asked == 1


def test_expired(dependency: Dependency) -> None:
    """After the interval the next look shows the truth at once, though an older result was at hand."""
    whole = engine(plan(dependency, interval=0.05))
    assert status(whole) == OK

    dependency.error = OSError()
    time.sleep(0.06)

    assert status(whole) == FAIL


def test_single_flight(dependency: Dependency) -> None:
    """Fifty probes that arrive together ask the dependency once."""
    whole = engine(plan(dependency, timeout=5))
    dependency.open.clear()
    threads = [threading.Thread(target=whole.look) for _ in range(50)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    dependency.open.set()
    for thread in threads:
        thread.join(5)

    assert dependency.asked == 1


@pytest.mark.alone
def test_hang(dependency: Dependency) -> None:
    """A check that hangs fails at its time limit, is asked no second time, holds nobody up, and harms no other."""
    whole = engine(plan(dependency, interval=0), plan(lambda: None, "other"))
    dependency.open.clear()
    began = time.monotonic()
    first = whole.look()
    took = time.monotonic() - began
    began = time.monotonic()
    for _ in range(100):
        whole.look()

    assert 0.19 < took < 1
    assert first.results["it"][1].finding.detail == "no answer within 0.2 s"
    assert first.results["other"][1].finding.status == OK
    assert dependency.asked == 1
    assert time.monotonic() - began < 0.2


def test_hang_that_takes_long_to_begin(dependency: Dependency, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a thread takes its time to start, as on a busy machine, the look still waits for the whole limit."""
    start = threading.Thread.start

    def slowly(thread: threading.Thread) -> None:
        start(thread)
        time.sleep(0.05)

    monkeypatch.setattr(threading.Thread, "start", slowly)
    dependency.open.clear()

    assert status(engine(plan(dependency))) == FAIL


def test_hang_ends(dependency: Dependency) -> None:
    """The next run after a hang tells that the dependency is back."""
    whole = engine(plan(dependency, interval=0.05))
    dependency.open.clear()
    assert status(whole) == FAIL

    dependency.open.set()
    time.sleep(0.1)

    assert status(whole) == OK


def test_late_answer(dependency: Dependency) -> None:
    """An answer after the time limit does not turn the kept failure into a success."""
    whole = engine(plan(dependency))
    dependency.open.clear()
    whole.look()
    dependency.open.set()
    time.sleep(0.1)

    assert status(whole) == FAIL


@pytest.mark.alone
def test_hang_behind_a_result(dependency: Dependency) -> None:
    """While a check that was fine hangs, a probe waits 50 ms at most; after the time limit it reads failed."""
    whole = engine(plan(dependency, interval=0.01))
    whole.look()
    dependency.open.clear()
    time.sleep(0.02)

    began = time.monotonic()
    assert status(whole) == OK
    assert status(whole) == OK
    assert time.monotonic() - began < 0.15
    time.sleep(0.2)
    assert status(whole) == FAIL


def test_stale(dependency: Dependency) -> None:
    """A result older than the staleness bound is not shown: the probe waits for the run."""
    whole = engine(plan(dependency, interval=0.01), stale_after=0.02)
    whole.look()
    dependency.open.clear()
    time.sleep(0.03)

    assert status(whole) == FAIL


@pytest.mark.parametrize("nonsense", ["ok", 3, False, Finding("banana"), object()])
def test_nonsense(nonsense: object) -> None:
    """What is neither None, True nor a Finding with a known status has failed, and says so."""
    found = judge(nonsense, str)

    assert found.status == FAIL
    assert found.detail.startswith("returned")


def test_exit() -> None:
    """A check that calls sys.exit has failed and ends nothing else."""

    def leave() -> None:
        raise SystemExit(3)

    assert engine(plan(leave)).look().results["it"][1].finding.detail == "SystemExit: 3"


def test_since(dependency: Dependency) -> None:
    """`since` tells when the present status began, not when it was last seen."""
    whole = engine(plan(dependency, interval=0))
    first = whole.look().results["it"][1]
    second = whole.look().results["it"][1]
    dependency.error = OSError()
    third = whole.look().results["it"][1]

    assert second.since == first.since
    assert second.checked > first.checked
    assert third.since > first.since


def test_events(dependency: Dependency) -> None:
    """Each change of the whole is told once, with its cause; what stays as it was is not told."""
    events: list[Event] = []
    whole = engine(plan(dependency, interval=0), plan(lambda: None, "other"))
    whole.tell(events.append, NoMeter())
    for error in (None, OSError("gone"), OSError("gone"), None, None):
        dependency.error = error
        whole.look()

    assert [(event.severity, event.fields["state"]) for event in events] == [
        ("error", "unhealthy"),
        ("info", "healthy"),
    ]
    assert events[0].name == "prod.health.changed"
    assert events[0].message == "Health changed from healthy to unhealthy (it: OSError: gone)"


def test_gauges(dependency: Dependency) -> None:
    """Two gauges follow: the whole, and each check, the worst being the highest."""
    seen: dict[tuple[str, ...], float] = {}

    class Gauge:
        def __init__(self, name: str) -> None:
            self.name = name

        def set(self, value: float, *labels: str) -> None:
            seen[(self.name, *labels)] = value

    class Gauges(NoMeter):
        def gauge(self, name: str, documentation: str, labels: Any = ()) -> Any:
            return Gauge(name)

    whole = engine(plan(dependency, critical=False))
    whole.tell(lambda event: None, Gauges())
    dependency.error = OSError()
    whole.look()

    assert seen == {("flask_prod_health_state",): 1, ("flask_prod_health_check_state", "it"): 2}


def test_fork(dependency: Dependency) -> None:
    """A forked child asks anew, even when its parent's run hung at the fork."""
    whole = engine(plan(dependency))
    dependency.open.clear()
    whole.look()
    whole.after_fork()
    dependency.open.set()

    assert status(whole) == OK
    assert dependency.asked == 2


def test_added_later() -> None:
    """A check that is added after the first look is there in the next."""
    plans = [plan(lambda: None)]
    whole = Engine(lambda: plans, asking(nullcontext, str), 30)
    whole.look()
    plans.append(plan(lambda: None, "late"))

    assert set(whole.look().results) == {"it", "late"}
