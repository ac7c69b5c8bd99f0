"""W3C trace context, read and written by hand."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from flask_prod.components.tracing.context import (
    Ids,
    bound_of,
    parse,
    trace_id_of,
    tracestate_of,
    write,
)

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


def test_parent_is_read() -> None:
    """Ids and the sampling flag come from the header; other flags do not matter."""
    for flags, sampled in (("00", False), ("01", True), ("02", False), ("ff", True)):
        parent = parse(f"00-{TRACE}-{SPAN}-{flags}")

        assert parent is not None
        assert (parent.trace_id, parent.span_id, parent.sampled) == (TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "header",
    [
        "", "00", GOOD + "-", GOOD + "-00", GOOD + " ", " " + GOOD, GOOD.upper(), GOOD[:-1], GOOD[:-1] + "g",
        f"ff-{TRACE}-{SPAN}-01", f"0-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[1:]}-{SPAN}-01", f"00-{TRACE}-{SPAN[1:]}-01", f"00_{TRACE}_{SPAN}_01", f"{GOOD},{GOOD}",
        f"01-{TRACE}-{SPAN}-01x", f"00-{TRACE}-{SPAN}-01\n", f"00-{'٤' * 32}-{SPAN}-01", "cc-" + "x" * 10_000,
    ],
)  # fmt: skip
def test_what_is_no_parent(header: str) -> None:
    """Anything that is not exactly a traceparent of the standard begins a new trace."""
    assert parse(header) is None


def test_later_version_counts_as_far_as_it_is_known() -> None:
    """A later version may append fields; those that all versions share are read."""
    for header in (f"01-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01-what-may-come"):
        parent = parse(header)

        assert parent is not None
        assert parent.sampled


@given(
    st.from_regex(r"\A[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[a-z]{0,3})?\Z") | st.text(max_size=60)
)
def test_reads_as_opentelemetry_does(header: str) -> None:
    """Whatever the header, we and OpenTelemetry's own propagator agree."""
    theirs = TraceContextTextMapPropagator().extract({"traceparent": header})
    found = get_current_span(theirs).get_span_context()
    ours = parse(header)

    assert (ours is not None) == found.is_valid
    if ours is not None:
        assert (int(ours.trace_id, 16), int(ours.span_id, 16)) == (found.trace_id, found.span_id)
        assert ours.sampled == found.trace_flags.sampled


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans())
def test_what_is_written_is_read(trace: int, span: int, sampled: bool) -> None:
    """A header of ours comes back as it was."""
    parent = parse(write(f"{trace:032x}", f"{span:016x}", sampled))

    assert parent is not None
    assert (int(parent.trace_id, 16), int(parent.span_id, 16), parent.sampled) == (trace, span, sampled)


@given(st.floats(0, 1), st.integers(1, 2**128 - 1))
def test_ratio_is_opentelemetrys(rate: float, trace: int) -> None:
    """Every id is kept or not as `TraceIdRatioBased` says, so services in other languages agree."""
    theirs = TraceIdRatioBased(rate).should_sample(None, trace, "").decision is Decision.RECORD_AND_SAMPLE

    assert (f"{trace:032x}"[16:] < bound_of(rate)) == theirs


def test_ratio_at_its_ends() -> None:
    """0 keeps nothing, 1 keeps everything."""
    assert not bound_of(0) > "0" * 16
    assert bound_of(1) > "f" * 16
    draw = random.Random(7).getrandbits
    kept = sum(f"{draw(64):016x}" < bound_of(0.1) for _ in range(10_000))
    assert 900 < kept < 1100


def test_request_id_as_trace_id() -> None:
    """32 hex digits and a UUID are good for a trace; anything else is not."""
    assert trace_id_of(TRACE) == TRACE
    assert trace_id_of("4BF92F35-77b3-4da6-a3ce-929d0e0e4736") == TRACE
    for other in ("0" * 32, TRACE.upper(), "order-4711", TRACE + "0", "z" * 32, ""):
        assert trace_id_of(other) is None


def test_tracestate_is_passed_on_if_it_is_one() -> None:
    """What others wrote travels on unchanged; control characters and excess do not."""
    assert tracestate_of("congo=t61rcWkgMzE,rojo=00f067aa0ba902b7") == "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"
    for header in (None, "", "a=b\r\nEvil: 1", "a=" + "x" * 600, "a=é"):
        assert tracestate_of(header) == ""


def test_ids_are_never_zero() -> None:
    """Ids are hex digits of the right length."""
    ids = Ids()
    for _ in range(100):
        assert int(ids.span_id(), 16)
        assert int(ids.trace_id(), 16)
        assert (len(ids.span_id()), len(ids.trace_id())) == (16, 32)
