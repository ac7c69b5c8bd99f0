"""One deadline over everything that is closed: order, shares, and the line that tells of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from flask_prod.core.closing import Closing, closing_seconds, in_order
from flask_prod.core.component import Contribution, Event, Periodic
from flask_prod.core.lifecycle import Lifecycle


def contributions(log: list[Event], **hooks: Callable[[], None]) -> dict[str, Contribution[None]]:
    found = {name: Contribution(handle=None, close=hook) for name, hook in hooks.items()}
    return {"logs": Contribution(handle=None, on_event=log.append, close=lambda: None), **found}


def void(_answer: object) -> None:
    """Return nothing, as a hook does."""


def test_order() -> None:
    """The reverse of installation, then metrics, traces, error reports, and the log last of all."""
    names = ("metrics", "proxy", "tracing", "logs", "error_tracking", "redis", "cache", "database", "jobs", "mine")
    hooks = in_order((name, lambda: None) for name in names)

    assert [name for name, _ in hooks] == [
        "mine", "jobs", "database", "cache", "redis", "proxy", "metrics", "tracing", "error_tracking", "logs",
    ]  # fmt: skip


@pytest.mark.alone
def test_what_hangs_is_left_behind() -> None:
    """Each may use half of what is left: two that hang leave time for the others, and both are named."""
    released, calls = threading.Event(), list[str]()
    closing = Closing(0.4)
    began = time.monotonic()

    closing.close([("one", released.wait), ("two", lambda: calls.append("two")), ("three", released.wait)])
    closing.close([("four", lambda: calls.append("four"))])

    assert time.monotonic() - began < 0.5
    assert calls == ["two", "four"]
    assert closing.closed.abandoned == ["one", "three"]
    assert list(closing.closed.seconds) == ["one", "two", "three", "four"]
    assert 0.15 < closing.closed.seconds["one"] < 0.3
    released.set()


def test_line() -> None:
    """A process that has served says how it ended, in milliseconds by room, before its log is closed."""
    log: list[Event] = []
    lifecycle = Lifecycle(contributions(log, redis=lambda: time.sleep(0.01)))
    lifecycle.start()

    lifecycle.close(1, {"requests": 0.5})

    (event,) = log
    assert (event.name, event.severity) == ("prod.process.closed", "info")
    durations = event.fields["ms"]
    assert isinstance(durations, dict)
    assert list(durations) == ["requests", "ticker", "redis"]
    assert durations["requests"] == 500
    assert durations["redis"] >= 10


def test_line_of_what_was_left_behind() -> None:
    """Who hangs is named in a warning, also where nothing has been served."""
    log: list[Event] = []
    released = threading.Event()
    lifecycle = Lifecycle(contributions(log, redis=lambda: void(released.wait())))

    lifecycle.close(0.2)
    released.set()

    (event,) = log
    assert event.severity == "warning"
    assert event.fields["abandoned"] == ["redis"]
    assert "left behind: redis" in event.message


def test_command_says_nothing() -> None:
    """A process that has not served ends without a word."""
    log: list[Event] = []

    Lifecycle(contributions(log)).close()

    assert log == []


def test_second_waits_for_the_first() -> None:
    """Whoever closes while another does waits: a process must not end in the middle of it."""
    gate, closed = threading.Event(), list[str]()

    def slow() -> None:
        gate.wait()
        closed.append("slow")

    lifecycle = Lifecycle(contributions([], slow=slow))
    first = threading.Thread(target=lifecycle.close, args=(5,))
    first.start()
    threading.Timer(0.1, gate.set).start()
    while not lifecycle.closed:
        time.sleep(0.001)

    assert lifecycle.close(5) == {}
    assert closed == ["slow"]
    first.join()


def test_threads_end() -> None:
    """Neither the thread for what is done again and again nor those for closing stay."""
    works = Contribution(handle=None, periodic=(Periodic("work", 9, lambda: None),), close=lambda: None)
    lifecycle = Lifecycle({"works": works})
    before = set(threading.enumerate())
    lifecycle.start()

    lifecycle.close()

    assert not [one for one in set(threading.enumerate()) - before if one.name.startswith("flask-prod-")]


def test_share_of_the_stop() -> None:
    """A quarter of the stop is kept for closing, 2.5 seconds at most."""
    assert closing_seconds(20) == 2.5
    assert closing_seconds(2) == 0.5
