"""The circuit breaker: when it opens, who may try, what closes it."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from flask_prod.components.redis import Breaker


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_opens_after_three_failures_in_a_row() -> None:
    """Two failures and a success are noise; three in a row are an outage."""
    breaker = Breaker()
    for _ in range(5):
        breaker.fail()
        breaker.fail()
        breaker.succeed()
    assert breaker.state == "closed"

    for _ in range(3):
        breaker.fail()

    assert breaker.state == "open"


def test_failures_side_by_side_are_one() -> None:
    """Sixteen calls that meet the same pause are one failure; the calls after it are the next."""
    clock = Clock()
    breaker = Breaker(clock=clock)
    for _ in range(2):
        began = [clock.now + n / 1000 for n in range(16)]
        clock.now += 0.1
        for moment in began:
            breaker.fail(moment)
    assert (breaker.failures, breaker.opened) == (2, False)

    breaker.fail(clock.now)
    assert breaker.opened


def test_doubtful_failures_count_half() -> None:
    """Six waits of a process that was not running open it, three do not."""
    breaker = Breaker()
    for _ in range(5):
        breaker.fail(weight=0.5)
    assert not breaker.opened

    breaker.fail(weight=0.5)
    assert breaker.opened


def test_refusals_open_although_reads_succeed() -> None:
    """A server out of memory still answers GET: those answers do not hide that it takes no writes."""
    breaker = Breaker()
    for _ in range(3):
        breaker.refuse()
        breaker.succeed()

    assert breaker.opened


def test_old_refusals_are_forgotten() -> None:
    """Three refusals spread over minutes open nothing."""
    clock = Clock()
    breaker = Breaker(clock=clock)
    for _ in range(6):
        breaker.refuse()
        clock.now += 6.0

    assert not breaker.opened


def test_one_probe_per_second_while_open() -> None:
    """Of a thousand callers in ten seconds, about one in each second may try."""
    clock = Clock()
    breaker = Breaker(clock=clock)
    breaker.trip()
    admitted = 0
    for _ in range(1000):
        clock.now += 0.01
        if breaker.admit():
            assert breaker.state == "half-open"
            breaker.end_probe(False)
            admitted += 1

    assert 8 <= admitted <= 13
    assert breaker.state == "open"


def test_only_a_probe_closes() -> None:
    """The late answer to a call from before the outage proves nothing; a probe's answer does."""
    clock = Clock()
    breaker = Breaker(clock=clock)
    breaker.trip()
    breaker.succeed()
    assert breaker.opened

    clock.now += 2.0
    assert breaker.admit()
    breaker.end_probe(True)

    assert breaker.state == "closed"
    assert breaker.admit()


def test_each_change_is_told_once() -> None:
    """Many threads that fail together are one change of state."""
    changes: list[str] = []
    breaker = Breaker(on_change=changes.append)

    def fail_often() -> None:
        for _ in range(50):
            breaker.fail()

    threads = [threading.Thread(target=fail_often) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert changes == ["open"]


@given(st.lists(st.tuples(st.sampled_from("fsrap"), st.floats(0, 3))))
def test_any_history_leaves_it_usable(history: list[tuple[str, float]]) -> None:
    """Whatever happened, open means at most one admission per interval, and one good probe closes it."""
    clock = Clock()
    breaker = Breaker(clock=clock)
    last = -10.0
    for what, seconds in history:
        clock.now += seconds
        was_open = breaker.opened
        if what == "f":
            breaker.fail()
        elif what == "r":
            breaker.refuse()
        elif what == "s":
            breaker.succeed()
        elif breaker.admit():
            if was_open:
                assert clock.now - last >= 0.75
                last = clock.now
                breaker.end_probe(what == "p")
        else:
            assert was_open

    clock.now += 2.0
    assert breaker.admit()
    breaker.end_probe(True)
    assert not breaker.opened
