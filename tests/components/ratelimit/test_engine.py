"""The arithmetic of the sliding window, in this process and in Redis."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from flask_prod.components.ratelimit.engine import COUNT, LOOK, SETTLE, LocalEngine, Verdict, remaining, wait
from flask_prod.components.ratelimit.headers import standing_of
from flask_prod.components.ratelimit.plan import Limits
from flask_prod.components.ratelimit.policy import Policy
from flask_prod.components.ratelimit.shared import SCRIPT, pack, unpack


class Clock:
    """A clock that a test sets, in milliseconds."""

    def __init__(self) -> None:
        self.now = 1_763_000_000_000

    def __call__(self) -> float:
        return self.now / 1000


POLICIES = st.builds(
    Policy,
    st.just("p"),
    st.integers(3, 12) | st.just(1_000_000),
    st.sampled_from([10_000, 60_000, 900_001, 2_678_400_000]),
    st.sampled_from([0, 0, 15_000, 3_600_000]),
    st.just(""),
    st.integers(0, 3),
    shadow=st.sampled_from([False, False, True]),
    chosen=st.sampled_from([None, None, frozenset({401})]),
)
BUSY = st.builds(
    Policy,
    st.just("p"),
    st.integers(2, 6),
    st.just(10_000),
    st.sampled_from([0, 15_000]),
    st.just(""),
    st.integers(1, 2),
    shadow=st.sampled_from([False, False, True]),
    chosen=st.sampled_from([None, None, frozenset({401})]),
)
PLAIN = st.builds(replace, POLICIES, cost=st.integers(1, 3), shadow=st.just(False), chosen=st.none())
BUSY_PLAIN = st.builds(replace, BUSY, shadow=st.just(False), chosen=st.none())
"""Policies that a few requests exceed."""

TIMES = st.integers(-500, 40_000) | st.integers(0, 300) | st.sampled_from([10_000, 60_000])
MODES = st.sampled_from([LOOK, COUNT, COUNT, COUNT, COUNT, SETTLE])
STEPS = st.lists(TIMES, max_size=40)
_numbers = count()


@given(
    st.lists(POLICIES | BUSY, min_size=1, max_size=3),
    st.lists(st.tuples(TIMES, MODES, st.sampled_from([1, 1, 1, 2, 64])), min_size=8, max_size=40),
)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_both_engines_agree(redis_url: str, policies: list[Policy], steps: list[tuple[int, int, int]]) -> None:
    """Given the same requests at the same times, Redis and this process say the same, to the last counter.

    Some only look, some settle, some count many at once. The clock also steps back, as after a failover to a
    server whose clock differs.
    """
    clock = Clock()
    local = LocalEngine(clock)
    keys = [f"agree:{next(_numbers)}".encode() for _ in policies]
    with Redis.from_url(redis_url) as redis:
        for step, mode, want in steps:
            clock.now += step
            here = local.consume(keys, policies, mode, want)
            packed = pack(policies, mode, want, now=int(clock() * 1000))
            there = unpack(redis.eval(SCRIPT, len(keys), *keys, packed), policies)

            for field in ("now", "refused", "shadowed", "rows"):
                assert getattr(here, field) == getattr(there, field), field
            assert mode != COUNT or here.refused or here.taken == there.taken


@given(
    st.lists(PLAIN | BUSY_PLAIN, min_size=1, max_size=3),
    st.lists(TIMES | st.sampled_from([900_001, -20_000]), min_size=8, max_size=60),
)
@settings(max_examples=300, deadline=None)
def test_the_short_way_agrees_with_the_long_one(policies: list[Policy], steps: list[int]) -> None:
    """What `take` counts and shows without much thought is to the digit what `consume` and the headers come to."""
    clock = Clock()
    short, long = LocalEngine(clock), LocalEngine(clock)
    limits = Limits.of(policies, "local", 1)
    keys = [f"{index}".encode() for index, _ in enumerate(policies)]
    slots = limits.slots(keys)
    for step in steps:
        clock.now += step
        standing = short.take(slots)
        verdict = long.consume(keys, policies)
        if standing is None:
            assert short.consume(keys, policies).refused == verdict.refused
        else:
            assert (verdict.refused, standing) == (0, standing_of(verdict, limits))
        assert short.consume(keys, policies, LOOK).rows == long.consume(keys, policies, LOOK).rows


def test_the_short_way_is_taken() -> None:
    """A known client with room to spare is counted without much thought."""
    policies = [Policy("a", 10, 60_000), Policy("b", 1000, 60_000)]
    local = LocalEngine(Clock())
    slots = Limits.of(policies, "local", 1).slots([b"a", b"b"])
    assert local.take(slots) is None

    local.consume([b"a", b"b"], policies)

    assert sum(local.take(slots) is not None for _ in range(20)) == 8  # the last point takes thought


@given(PLAIN, st.lists(st.integers(0, 5_000), min_size=1, max_size=200))
def test_never_more_than_the_points_in_a_fixed_window(policy: Policy, steps: list[int]) -> None:
    """Whatever the timing, no fixed window passes more than the points, and no sliding one more than twice."""
    clock = Clock()
    local = LocalEngine(clock)
    passed: dict[int, int] = {}
    for step in steps:
        clock.now += step
        if not local.consume([b"k"], [policy]).refused:
            window = clock.now // policy.window
            passed[window] = passed.get(window, 0) + policy.cost

    assert all(points <= policy.points for points in passed.values())


@given(BUSY_PLAIN, st.lists(st.integers(0, 4_000), min_size=10, max_size=60))
def test_waiting_as_told_is_enough_and_not_too_long(policy: Policy, steps: list[int]) -> None:
    """A refused request passes after exactly the wait it was told, and not a millisecond before."""
    clock = Clock()
    local = LocalEngine(clock)
    for step in steps:
        clock.now += step
        verdict = local.consume([b"k"], [policy])
        if not verdict.refused:
            continue
        told = wait(policy, verdict.rows[0], verdict.now)
        assert told > 0
        clock.now += told - 1
        assert local.consume([b"k"], [policy], LOOK).refused
        clock.now += 1
        assert not local.consume([b"k"], [policy], LOOK).refused
        clock.now -= told


@given(PLAIN, STEPS)
def test_what_remains_is_what_passes(policy: Policy, steps: list[int]) -> None:
    """Exactly as many requests pass at once as the headers promise."""
    clock = Clock()
    local = LocalEngine(clock)
    for step in steps:
        clock.now += abs(step)
        local.consume([b"k"], [policy])
    verdict = local.consume([b"k"], [policy], LOOK)
    promised = remaining(policy, verdict.rows[0], verdict.now) // policy.cost
    if promised < 50:
        passed = [not local.consume([b"k"], [policy]).refused for _ in range(promised + 1)]
        assert passed == [True] * promised + [False]


def test_a_refused_request_counts_nowhere() -> None:
    """The second limit refuses; the first is untouched."""
    local = LocalEngine(Clock())
    wide, narrow = Policy("wide", 100, 60_000), Policy("narrow", 1, 60_000)
    assert local.consume([b"w", b"n"], [wide, narrow]).refused == 0

    assert local.consume([b"w", b"n"], [wide, narrow]).refused == 2
    assert local.consume([b"w"], [wide], LOOK).rows[0][1] == 1


def test_looking_changes_nothing() -> None:
    """A client that has used all its points is not shut out by a look at them."""
    local = LocalEngine(Clock())
    policy = Policy("login", 1, 10_000, 3_600_000)
    local.consume([b"k"], [policy])
    seen = [local.consume([b"k"], [policy], LOOK) for _ in range(3)]

    assert [(verdict.refused, verdict.rows[0][1], verdict.rows[0][3]) for verdict in seen] == [(1, 1, 0)] * 3


def test_a_breach_shuts_the_client_out() -> None:
    """With a block the client stays out when the window is long over."""
    clock = Clock()
    local = LocalEngine(clock)
    policy = Policy("login", 1, 10_000, 3_600_000)
    local.consume([b"k"], [policy])
    assert local.consume([b"k"], [policy]).retry_after == 3600

    clock.now += 3_599_000
    assert local.consume([b"k"], [policy]).retry_after == 1
    clock.now += 1_000
    assert not local.consume([b"k"], [policy]).refused


def test_memory_is_bounded() -> None:
    """Expired counters go as new ones come, and there are never more than the bound."""
    clock = Clock()
    local = LocalEngine(clock, size=1000)
    policy = Policy("p", 5, 10_000)
    for number in range(5_000):
        local.consume([str(number).encode()], [policy])
        assert len(local) <= 1000

    clock.now += 60_000
    for number in range(600):
        local.consume([f"new{number}".encode()], [policy])
    assert len(local) == 600


@pytest.fixture
def busy_switching() -> Iterator[None]:
    """Let threads take turns as often as the interpreter can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("busy_switching")
def test_threads_count_exactly() -> None:
    """Eight threads with 500 requests each get what one would, however often they take turns."""
    local = LocalEngine()
    policy = Policy("p", 1000, 2_678_400_000)
    passed: list[int] = []

    def come() -> None:
        passed.append(sum(not local.consume([b"k"], [policy]).refused for _ in range(500)))

    threads = [threading.Thread(target=come) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(passed) == 1000


@pytest.mark.parametrize(
    "reply",
    [
        b"", b"1", b"[0,0,1,5,[]]", b"[0,0,1,5,[[1,2,3]]]", b"[9,0,1,5,[[1,2,3,4]]]", b"[0,0,0,5,[[1,2,3,4]]]",
        b"[0,0,1,5,[[1,2,3,4]]", b"[0,0,1,5,[[1,2,3,null]]]", b"x y", None, 7, [b"0"],
    ],
)  # fmt: skip
def test_a_damaged_answer_is_no_verdict(reply: object) -> None:
    """What comes damaged from the network is a ValueError, which counts as a failure of Redis."""
    with pytest.raises(ValueError, match=r"."):
        unpack(reply, [Policy("p", 1, 1000)])


def test_an_answer_as_the_script_gives_it() -> None:
    """The same with nothing damaged is a verdict."""
    verdict = unpack(b"[1,0,1,5,[[1,2,3,4]]]", [Policy("p", 1, 1000)])

    assert (verdict.refused, verdict.now, verdict.taken, verdict.rows) == (1, 5, 1, [(1, 2, 3, 4)])


def test_garbage_under_a_key_is_a_fresh_start(redis_url: str) -> None:
    """Text that is no counter counts as none."""
    policy = Policy("p", 2, 60_000)
    with Redis.from_url(redis_url) as redis:
        redis.set("k", "hello")
        verdict: Verdict = unpack(redis.eval(SCRIPT, 1, "k", pack([policy])), [policy])

    assert verdict.rows[0][1] == 1
