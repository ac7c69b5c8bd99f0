"""W3C trace context by hand: what a request goes on with, and whether its spans are kept.

Decided for every request, so nothing of OpenTelemetry is touched here. https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from random import Random

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"

_TRACEPARENT = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})-(?P<span>(?!0{16})[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?",
    re.ASCII,
)
_TRACESTATE = re.compile(r"[\x20-\x7e\t]{1,512}", re.ASCII)
_HEX = re.compile(r"(?!0{32})[0-9a-f]{32}", re.ASCII)
_UUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", re.ASCII)
_LONGEST = 256


class Parent:
    """What a `traceparent` header says."""

    __slots__ = ("sampled", "span_id", "trace_id")

    def __init__(self, trace_id: str, span_id: str, sampled: bool) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.sampled = sampled


def parse(header: str) -> Parent | None:
    """Return what *header* says, None when it is not exactly a `traceparent`.

    Of a later version the part that all versions share counts, as the standard asks.
    """
    match = _TRACEPARENT.fullmatch(header) if len(header) <= _LONGEST else None
    if match is None or (match["version"] == "00" and match["more"] is not None):
        return None
    return Parent(match["trace"], match["span"], bool(int(match["flags"], 16) & 1))


def write(trace_id: str, span_id: str, sampled: bool) -> str:
    """Return a `traceparent` header."""
    return f"00-{trace_id}-{span_id}-0{int(sampled)}"


def tracestate_of(header: str | None) -> str:
    """Return a `tracestate` header as it is passed on; empty when it is none, or longer than must be kept."""
    return header if header and _TRACESTATE.fullmatch(header) else ""


def trace_id_of(request_id: str) -> str | None:
    """Return a request id as a trace id: 32 hex digits, or a UUID; None for any other."""
    if _HEX.fullmatch(request_id):
        return request_id
    return request_id.replace("-", "").lower() if _UUID.fullmatch(request_id) else None


def bound_of(rate: float) -> str:
    """Return what the last 16 digits of a trace id must be below to be kept, as `TraceIdRatioBased` decides.

    Text of equal length compares as the numbers do, without making one of them per request.
    """
    bound = round(rate * 2**64)
    return "g" if bound >= 2**64 else f"{bound:016x}"


class Ids:
    """A source of random ids; urandom is a system call. A forked child needs its own."""

    def __init__(self) -> None:
        self._draw: Callable[[int], int] = Random(os.urandom(32)).getrandbits  # noqa: S311  # ids are no secrets

    def span_id(self) -> str:
        """Return 16 hex digits, never all zero."""
        return f"{self._draw(64) or 1:016x}"

    def trace_id(self) -> str:
        """Return 32 hex digits, never all zero."""
        return f"{self._draw(128) or 1:032x}"
