"""The short way to a request's line gives what the long way gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from flask_prod.components.logs import LogSettings
from flask_prod.components.logs.engine import AppLog
from flask_prod.components.logs.lines import as_json
from flask_prod.components.logs.quick import QuickLines
from flask_prod.core.record import RequestRecord
from flask_prod.core.settings import ServiceSettings

SERVICE = ServiceSettings(service_name='sh"op', service_version="1\n2", environment="test")


def both(record: RequestRecord, slow: bool = False) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Return the line of either way, without what the clock adds."""
    log = AppLog(LogSettings(), SERVICE, as_json, lambda line: None)
    assert log._quick is not None
    short = log._quick.line(record, "info", slow)
    again = log._quick.line(record, "info", slow)
    assert short is None or (again is not None and len(short) == len(again))
    long = json.loads(as_json(log._request_line(record, "info", slow)))
    decoded = None if short is None else json.loads(short)
    for line in (decoded, long):
        if line is not None:
            assert line.pop("timestamp").endswith("Z")
            for name in ("duration_ms", "db_ms"):
                if name in line:
                    line[name] = pytest.approx(line[name], abs=0.0011)
    return decoded, long


def record_of(**values: Any) -> RequestRecord:
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.url_scheme": "http", "SERVER_NAME": "x"}
    record = RequestRecord(environ, "0" * 32, 0.0)
    for name, value in values.items():
        setattr(record, name, value)
    return record


@given(
    path=st.text(alphabet=st.characters(max_codepoint=255), max_size=300),
    route=st.none() | st.text(max_size=20),
    client=st.text(max_size=300),
    user=st.none() | st.text(max_size=300),
    duration=st.floats(0, 1e5),
    slow=st.booleans(),
    asked=st.just((0, 0.0)) | st.tuples(st.integers(1, 10**6), st.floats(0.00001, 1e5)),
)
def test_same_line(
    path: str,
    route: str | None,
    client: str,
    user: str | None,
    duration: float,
    slow: bool,
    asked: tuple[int, float],
) -> None:
    """Field by field, in the same order, whatever path, route, client and user are."""
    record = record_of(path=path, route=route, client=client, user_id=user, duration=duration, status=200,
                       bytes_sent=7, trace_id="a" * 32, span_id="b" * 16, db_queries=asked[0],
                       db_seconds=asked[1])  # fmt: skip
    short, long = both(record, slow)

    assert short == long
    assert list(short or ()) == list(long)


@pytest.mark.parametrize(
    "values",
    [
        {"error": ValueError()},
        {"extra": {"a": 1}},
        {"method": "BR\nEW"},
        {"request_id": 'a"b'},
        {"request_id": ""},
    ],
)
def test_long_way(values: dict[str, Any]) -> None:
    """What has more to say, or looks odd, is left to the long way."""
    assert both(record_of(**values))[0] is None


def test_caches_are_bounded() -> None:
    """However many paths and clients come, only so many are kept, and long ones never."""
    lines = QuickLines(("a", "b", "c"), json.dumps, lambda record: record.path)
    for number in range(10_000):
        lines.line(record_of(path=f"/{number}", client=str(number)), "info", False)
    lines.line(record_of(path="/" + "x" * 1000, client="y" * 1000), "info", False)

    assert len(lines._places) <= 4096
    assert len(lines._texts) <= 4096
    assert all(len(text) < 300 for text in (*lines._places, *lines._texts))


def test_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second is renewed when it is over, and when the clock is set back."""
    moments = iter([1_700_000_000.25, 1_700_000_000.999999, 1_700_000_001.0, 1_699_999_999.5])
    monkeypatch.setattr("flask_prod.components.logs.quick.time", lambda: next(moments))
    lines = QuickLines(("a", "b", "c"), json.dumps, lambda record: record.path)
    found = [json.loads(lines.line(record_of(), "info", False) or b"")["timestamp"][17:] for _ in range(4)]

    assert found == ["20.250000Z", "20.999999Z", "21.000000Z", "19.500000Z"]


def test_same_path_by_another_route(shop: Flask, lines: Callable[..., list[dict[str, Any]]]) -> None:
    """A path that two routes share by method keeps each its own."""
    shop.add_url_rule("/both", "first", lambda: "a", methods=["GET"])
    shop.add_url_rule("/<name>", "second", lambda name: "b", methods=["POST"])
    client = shop.test_client()
    for method in ("GET", "POST", "GET"):
        client.open("/both", method=method)

    assert [line["route"] for line in lines("request")] == ["/both", "/<name>", "/both"]
