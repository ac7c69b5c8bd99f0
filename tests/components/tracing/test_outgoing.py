"""Calls to other services carry the trace, whoever makes them, and are measured where it is sampled."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import requests
import urllib3
from flask import Flask

from flask_prod import ProdKit
from tests.otlp import Collector, Span
from tests.servers import HttpSink, SinkHandler

from .conftest import MakeTraced, flush

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def by_requests(url: str, **headers: str) -> object:
    with requests.Session() as session:
        return session.get(url, headers=headers).status_code


def by_urllib3(url: str, **headers: str) -> object:
    with urllib3.PoolManager() as pool:
        return pool.request("GET", url, headers=headers).status


def by_httpx(url: str, **headers: str) -> object:
    with httpx.Client(follow_redirects=True, trust_env=False) as client:
        return client.get(url, headers=headers).status_code


def by_async_httpx(url: str, **headers: str) -> object:
    async def get() -> object:
        async with httpx.AsyncClient(follow_redirects=True, trust_env=False) as client:
            return (await client.get(url, headers=headers)).status_code

    return asyncio.run(get())


CLIENTS = pytest.mark.parametrize("call", [by_requests, by_urllib3, by_httpx, by_async_httpx])


@pytest.fixture
def other() -> Iterator[HttpSink]:
    """Run another service."""
    with HttpSink() as sink:
        yield sink


def calling(make_traced: MakeTraced, call: Any, url: str, **config: Any) -> Flask:
    """Build an application that calls another service in its view."""
    kit = ProdKit(only=("tracing",))
    app = make_traced(kit=kit, **config)

    @app.get("/")
    def view() -> dict[str, object]:
        call(url)
        return {"span": kit.tracing.span_id, "trace": kit.tracing.trace_id}

    return app


@CLIENTS
def test_sampled_call_is_measured(
    make_traced: MakeTraced, collector: Collector, other: HttpSink, call: Any
) -> None:
    """The other service's parent is the span of the call, and the span holds nothing of path or query."""
    app = calling(make_traced, call, f"{other.url}/bot-secret-token/send?key=secret-key")

    app.test_client().get("/", headers={"traceparent": PARENT, "tracestate": "congo=t61"})
    flush(app)

    (received,) = other.requests
    client, server = collector.spans
    assert (client.kind, client.name, client.parent) == ("client", "GET 127.0.0.1", server.span_id)
    assert received.headers["traceparent"] == f"00-{PARENT[3:35]}-{client.span_id}-01"
    assert received.headers["tracestate"] == "congo=t61"
    assert client.attributes == {
        "http.request.method": "GET", "url.scheme": "http", "server.address": "127.0.0.1",
        "server.port": other.port, "http.response.status_code": 200,
    }  # fmt: skip
    assert b"secret" not in b"".join(collector.bodies)


@CLIENTS
def test_unsampled_call_carries_the_ids(
    make_traced: MakeTraced, collector: Collector, other: HttpSink, call: Any
) -> None:
    """An unsampled request names its trace and says that it is not kept, so no service keeps half of it."""
    app = calling(make_traced, call, other.url, TRACING_SAMPLING_RATE=0.0)

    told = app.test_client().get("/").get_json()
    flush(app)

    assert other.requests[0].headers["traceparent"] == f"00-{told['trace']}-{told['span']}-00"
    assert collector.spans == []


@CLIENTS
def test_nothing_is_sent_outside_of_requests_or_when_off(
    make_traced: MakeTraced, other: HttpSink, call: Any
) -> None:
    """No trace, no header; nor with TRACING_OUTGOING=false."""
    app = calling(make_traced, call, other.url, TRACING_OUTGOING=False)

    call(other.url)
    app.test_client().get("/")

    assert len(other.requests) == 2
    assert not any("traceparent" in request.headers for request in other.requests)


@CLIENTS
def test_header_that_is_there_is_left_alone(
    make_traced: MakeTraced, collector: Collector, other: HttpSink, call: Any
) -> None:
    """Who sends a traceparent of their own, or by another instrumentation, keeps it; nothing is measured twice."""
    app = calling(make_traced, lambda url: call(url, traceparent=PARENT), other.url)

    app.test_client().get("/")
    flush(app)

    assert other.requests[0].headers["traceparent"] == PARENT
    assert [span.kind for span in collector.spans] == ["server"]


class _Redirecting(HttpSink):
    """Answers with a redirect to another host of the same machine."""

    target = ""


@pytest.fixture
def redirecting(other: HttpSink, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpSink]:
    """Run a service that sends its callers to *other* under another name."""
    with _Redirecting(mode=302) as sink:
        send_header = SinkHandler.send_header

        def reply(self: SinkHandler, status: int, body: bytes) -> None:
            if self.owner is sink:
                self.send_response(302)
                send_header(self, "Location", f"http://localhost:{other.port}/")
                send_header(self, "Content-Length", "0")
                send_header(self, "Connection", "close")
                self.end_headers()
                return
            original(self, status, body)

        original = SinkHandler.reply
        monkeypatch.setattr(SinkHandler, "reply", reply)
        yield sink


@CLIENTS
def test_redirect_is_judged_anew(
    make_traced: MakeTraced, collector: Collector, other: HttpSink, redirecting: HttpSink, call: Any
) -> None:
    """A host that is not listed is not sent the ids because one that is pointed to it."""
    app = calling(make_traced, call, redirecting.url, TRACING_OUTGOING_HOSTS=["127.0.0.1"])

    app.test_client().get("/")
    flush(app)

    assert "traceparent" in redirecting.requests[0].headers
    assert "traceparent" not in other.requests[0].headers


@CLIENTS
def test_each_hop_has_a_span(
    make_traced: MakeTraced, collector: Collector, other: HttpSink, redirecting: HttpSink, call: Any
) -> None:
    """Where all hosts are sent the ids, each hop is measured and named to its host."""
    app = calling(make_traced, call, redirecting.url)

    app.test_client().get("/")
    flush(app)

    hops = [span for span in collector.spans if span.kind == "client"]
    assert [hop.attributes["http.response.status_code"] for hop in hops] == [302, 200]
    sent = [sink.requests[0].headers["traceparent"].split("-")[2] for sink in (redirecting, other)]
    assert sent == [hop.span_id for hop in hops]


@CLIENTS
def test_failed_call_is_told(make_traced: MakeTraced, collector: Collector, other: HttpSink, call: Any) -> None:
    """A host that refuses is an error of the call, and of the request only if that fails too."""

    def carefully(url: str) -> None:
        with pytest.raises(Exception, match=r"."):
            call(url)

    app = calling(make_traced, carefully, "http://127.0.0.1:9/?token=secret")
    app.test_client().get("/")
    flush(app)

    calls = [span for span in collector.spans if span.kind == "client"]
    request: Span = collector.spans[-1]
    assert calls
    assert {span.status for span in calls} == {"error"}
    assert request.status == "unset"
    assert b"secret" not in b"".join(collector.bodies)


def test_library_imported_later_is_hooked(collector: Collector, other: HttpSink) -> None:
    """A client library that is first imported in a view carries the trace in its very first call."""
    code = f"""
import sys
from flask import Flask
from flask_prod import ProdKit
app = Flask("shop")
app.config.update(ENVIRONMENT="test", OTLP_ENDPOINT={collector.url!r}, TRACING_SAMPLING_RATE=1.0)
ProdKit(app, only=("tracing",))
assert "httpx" not in sys.modules and "urllib3" not in sys.modules
@app.get("/")
def view():
    import httpx, urllib3
    httpx.get({other.url!r}, trust_env=False)
    urllib3.PoolManager().request("GET", {other.url!r})
    return "x"
app.test_client().get("/")
app.extensions["prod"].lifecycle.close()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

    assert [("traceparent" in request.headers) for request in other.requests] == [True, True]
    assert sorted(span.kind for span in collector.spans) == ["client", "client", "server"]
