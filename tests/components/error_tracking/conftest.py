"""What the tests of error tracking share: reading what Sentry was sent."""

from __future__ import annotations

import json
from typing import Any, Protocol

import pytest

from tests import servers


class Sent(Protocol):
    """Waits for items that the sink was sent."""

    def __call__(self, count: int = 1, kind: str = "event", seconds: float = 5.0) -> list[dict[str, Any]]:
        """Return the items of this kind once there are *count*; fail when there are more."""


def items(sink: servers.HttpSink, kind: str) -> list[dict[str, Any]]:
    """Return the payloads of this type from all envelopes so far."""
    found = []
    for request in tuple(sink.requests):
        lines = request.body.split(b"\n")
        for header, payload in zip(lines[1::2], lines[2::2], strict=False):
            if json.loads(header).get("type") == kind:
                found.append(json.loads(payload))
    return found


@pytest.fixture
def sent(http_sink: servers.HttpSink) -> Sent:
    """Give a function that waits for what Sentry was sent."""

    def wait(count: int = 1, kind: str = "event", seconds: float = 5.0) -> list[dict[str, Any]]:
        servers.wait_for(lambda: len(items(http_sink, kind)) >= count, seconds, f"{count} of {kind}")
        found = items(http_sink, kind)
        assert len(found) == count
        return found

    return wait
