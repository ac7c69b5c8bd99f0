"""What a request's span says, and whom its decision follows."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
from flask import Flask, Response
from opentelemetry import trace

from flask_prod import ProdKit
from flask_prod.core.record import RequestRecord, current_record
from tests.apps import MakeApp
from tests.otlp import Collector

from .conftest import MakeTraced, flush, spans_total

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
STRANGER = {"REMOTE_ADDR": "203.0.113.9"}


def parent(flags: str = "01", trace: str = TRACE) -> dict[str, str]:
    """Return the headers of a caller that has a trace."""
    return {"traceparent": f"00-{trace}-{SPAN}-{flags}"}


def ids_of(app: Flask) -> None:
    """Add a view that answers with the ids of its request."""

    @app.get("/ids/<int:number>")
    def ids(number: int) -> dict[str, object]:
        record = current_record()
        assert record is not None
        return {
            "trace": record.trace_id, "span": record.span_id, "sampled": record.sampled, "id": record.request_id
        }  # fmt: skip


def test_span_tells_the_request(make_traced: MakeTraced, collector: Collector) -> None:
    """A span has OpenTelemetry's names, the route rather than the path, the request id, and this service."""
    app = make_traced(SERVICE_VERSION="1.2.3")
    ids_of(app)

    told = app.test_client().get("/ids/7?token=hunter2hunter2").get_json()
    flush(app)

    (span,) = collector.spans
    assert span.name == "GET /ids/<int:number>"
    assert (span.kind, span.status, span.parent) == ("server", "unset", "")
    assert (span.trace_id, span.span_id) == (told["trace"], told["span"]) == (told["id"], told["id"][:16])
    assert (
        span.attributes.items()
        >= {
            "http.request.method": "GET",
            "http.route": "/ids/<int:number>",
            "url.path": "/ids/7",
            "url.scheme": "http",
            "http.response.status_code": 200,
            "client.address": "127.0.0.1",
            "server.address": "localhost",
            "request_id": told["id"],
        }.items()
    )
    assert span.resource["service.name"] == "shop"
    assert span.resource["service.version"] == "1.2.3"
    assert span.resource["deployment.environment.name"] == "test"
    assert b"hunter2" not in collector.bodies[0]


def test_sampled_parent_is_followed(make_traced: MakeTraced, collector: Collector) -> None:
    """A caller on a private network decides, whatever our own rate; its tracestate is kept."""
    app = make_traced(TRACING_SAMPLING_RATE=0.0)
    ids_of(app)

    told = app.test_client().get("/ids/1", headers=parent() | {"tracestate": "congo=t61rcWkgMzE"}).get_json()
    flush(app)

    (span,) = collector.spans
    assert (span.trace_id, span.parent, span.state) == (TRACE, SPAN, "congo=t61rcWkgMzE")
    assert span.span_id == told["span"] != SPAN


def test_unsampled_parent_is_followed(make_traced: MakeTraced, collector: Collector) -> None:
    """A caller that does not keep its trace is followed in that too, and its ids still stand in our lines."""
    app = make_traced()
    ids_of(app)

    told = app.test_client().get("/ids/1", headers=parent("00")).get_json()
    flush(app)

    assert collector.spans == []
    assert (told["trace"], told["sampled"]) == (TRACE, False)


@pytest.mark.parametrize(
    ("trust", "client", "trace", "sampled"),
    [
        ("private", "10.1.1.1", TRACE, True),
        ("private", "203.0.113.9", TRACE, False),
        ("ids", "10.1.1.1", TRACE, False),
        ("always", "203.0.113.9", TRACE, True),
        ("never", "10.1.1.1", None, False),
    ],
)
def test_whose_decision_counts(
    make_traced: MakeTraced, trust: str, client: str, trace: str | None, sampled: bool
) -> None:
    """A stranger may name a trace, and cannot make us keep it; TRACING_TRUST_PARENT says who is none."""
    app = make_traced(TRACING_SAMPLING_RATE=0.0, TRACING_TRUST_PARENT=trust)
    ids_of(app)

    told = app.test_client().get("/ids/1", headers=parent(), environ_base={"REMOTE_ADDR": client}).get_json()

    assert (told["trace"] == TRACE) == (trace == TRACE)
    assert told["sampled"] is sampled


def test_stranger_cannot_choose_an_id_that_is_kept(make_traced: MakeTraced) -> None:
    """An id whose last digits are zero would always be kept by ratio: a stranger's is not what is asked."""
    app = make_traced(TRACING_SAMPLING_RATE=0.01)
    ids_of(app)
    lowest = "f" * 16 + "0" * 15 + "1"

    client = app.test_client()
    told = [
        client.get("/ids/1", headers=parent(trace=lowest), environ_base=STRANGER).get_json() for _ in range(50)
    ]

    assert sum(one["sampled"] for one in told) <= 5


def test_client_behind_a_proxy_is_who_is_trusted(make_traced: MakeTraced) -> None:
    """A stranger's decision does not count because a trusted proxy stands in between."""
    app = make_traced(TRACING_SAMPLING_RATE=0.0, TRUSTED_PROXIES=1)
    ids_of(app)

    stranger = app.test_client().get("/ids/1", headers=parent() | {"X-Forwarded-For": "203.0.113.9"}).get_json()
    neighbour = app.test_client().get("/ids/1", headers=parent() | {"X-Forwarded-For": "10.0.0.7"}).get_json()

    assert (stranger["sampled"], neighbour["sampled"]) == (False, True)


def test_request_id_of_a_proxy_becomes_the_trace(make_traced: MakeTraced) -> None:
    """A UUID that a trusted proxy gave is the trace's id too; one that is none leaves the trace an own id."""
    app = make_traced(TRUSTED_PROXIES=1)
    ids_of(app)

    uuid = (
        app.test_client()
        .get("/ids/1", headers={"X-Request-ID": "4BF92F35-77b3-4da6-a3ce-929d0e0e4736"})
        .get_json()
    )
    other = app.test_client().get("/ids/1", headers={"X-Request-ID": "order-4711"}).get_json()

    assert (uuid["trace"], uuid["sampled"]) == (TRACE, True)
    assert other["id"] == "order-4711"
    assert len(other["trace"]) == 32
    assert other["trace"] != other["id"]


def test_error_is_told_without_secrets(make_traced: MakeTraced, collector: Collector) -> None:
    """A crash has status, type and stack; what its request sent as a secret, or its variables held, has not."""
    app = make_traced()
    app.testing = False

    @app.get("/crash")
    def crash() -> str:
        password = "correct-horse-battery"
        raise ValueError(f"no {password}, no cookie-value-77, card 4111 1111 1111 1111")

    with app.test_client() as client:
        client.set_cookie("sid", "cookie-value-77")
        answer = client.get("/crash")
    flush(app)

    (span,) = collector.spans
    (event,) = span.events
    assert (span.status, span.attributes["error.type"]) == ("error", "ValueError")
    assert event.name == "exception"
    assert event.attributes["exception.type"] == "ValueError"
    assert "in crash" in event.attributes["exception.stacktrace"]
    message = event.attributes["exception.message"]
    assert message == "no [redacted], no [redacted], card [redacted]"
    assert b"cookie-value-77" not in collector.bodies[0]
    assert answer.json is not None
    assert answer.json["trace_id"] == span.trace_id


def test_duration_is_the_records(make_traced: MakeTraced, collector: Collector) -> None:
    """A span lasts as long as metrics and access line say, to the microsecond, streams included."""
    seen: list[RequestRecord | None] = []
    app = make_traced()

    @app.get("/stream")
    def stream() -> Response:
        seen.append(current_record())
        return Response(iter([b"a", b"b"]))

    app.test_client().get("/stream").close()
    flush(app)

    assert seen[0] is not None
    assert collector.spans[0].seconds == pytest.approx(seen[0].duration, abs=2e-6)


def test_probes_scrapes_and_preflights_have_no_span(make_traced: MakeTraced, collector: Collector) -> None:
    """Trap 39: what is most frequent and tells least is never traced."""
    app = make_traced()
    client = app.test_client()

    for path in ("/health", "/health/live", "/health/ready", "/metrics"):
        client.get(path, headers=parent())
    client.options("/", headers={"Origin": "https://a.example", "Access-Control-Request-Method": "GET"})
    client.get("/nowhere")
    flush(app)

    assert [span.name for span in collector.spans] == ["GET"]


def test_strange_methods_share_a_name(make_traced: MakeTraced, collector: Collector) -> None:
    """A method that nobody knows is _OTHER: names stay few."""
    app = make_traced()

    app.test_client().open("/x", method="BREW")
    flush(app)

    (span,) = collector.spans
    assert (span.name, span.attributes["http.request.method"]) == ("HTTP", "_OTHER")
    assert span.attributes["http.request.method_original"] == "BREW"


def test_bytes_that_are_no_text_lose_no_batch(make_traced: MakeTraced, collector: Collector) -> None:
    """Half surrogates, NUL and a megabyte in path and attributes arrive, bounded."""
    kit = ProdKit(only=("tracing",))
    app = make_traced(kit=kit)

    @app.get("/odd/<path:rest>")
    def odd(rest: str) -> str:
        with kit.span("odd\ud800", text="\ud800\x00\u2028" + "x" * 1_000_000):
            raise ValueError("\udfff\x00")

    app.testing = False
    app.test_client().get("/odd/%ff%fe%00%1b")
    flush(app)

    assert {span.name for span in collector.spans} == {"odd?", "GET /odd/<path:rest>"}
    assert max(len(body) for body in collector.bodies) < 60_000


def test_own_spans_join_the_request(make_traced: MakeTraced, collector: Collector) -> None:
    """A tracer that the application's own code got from OpenTelemetry, at import, nests in the request."""
    tracer = trace.get_tracer("shop")  # before there is any application
    kit = ProdKit(only=("tracing",))
    app = make_traced(kit=kit)

    @app.get("/nest")
    @tracer.start_as_current_span("view")
    def nest() -> str:
        with kit.span("outer", order=7) as outer:
            outer.set("paid", True)
            with tracer.start_as_current_span("inner"):
                return kit.tracing.carrier()["traceparent"]

    text = app.test_client().get("/nest").text
    flush(app)

    spans = {span.name: span for span in collector.spans}
    request, view, outer, inner = (spans[name] for name in ("GET /nest", "view", "outer", "inner"))
    assert [view.parent, outer.parent, inner.parent] == [request.span_id, view.span_id, outer.span_id]
    assert {span.trace_id for span in spans.values()} == {request.trace_id}
    assert outer.attributes == {"order": 7, "paid": True}
    assert text == f"00-{request.trace_id}-{inner.span_id}-01"


def test_nothing_stays_current_after_its_end(make_traced: MakeTraced, collector: Collector) -> None:
    """A block gives the context back to what was current before, and a request leaves none behind."""
    kit = ProdKit(only=("tracing",))
    app = make_traced(kit=kit)
    seen: list[int] = []

    @app.get("/")
    def view() -> str:
        seen.append(trace.get_current_span().get_span_context().span_id)
        with kit.span("inner"), kit.span("innermost"):
            seen.append(trace.get_current_span().get_span_context().span_id)
        seen.append(trace.get_current_span().get_span_context().span_id)
        return kit.tracing.span_id

    own = int(app.test_client().get("/").text, 16)

    assert (seen[0], seen[2]) == (own, own)
    assert seen[1] != own
    assert not trace.get_current_span().get_span_context().is_valid


def test_secrets_in_own_spans_are_starred(make_traced: MakeTraced, collector: Collector) -> None:
    """OpenTelemetry writes messages and stacks down as they are: they are cleaned before they leave."""
    kit = ProdKit(only=("tracing",))
    app = make_traced(kit=kit)
    app.testing = False

    @app.get("/leak")
    def leak() -> str:
        with trace.get_tracer("shop").start_as_current_span("mine") as span:
            span.set_attribute("api_key", "sk-plain-12345")
            span.set_attribute("note", "Bearer abcdefghijk")
            with kit.span("theirs", password="sk-plain-12345"):
                raise ValueError("for token-of-the-caller")

    app.test_client().get("/leak", headers={"Authorization": "Bearer token-of-the-caller"})
    flush(app)

    everything = b"".join(collector.bodies)
    assert len(collector.spans) == 3
    for secret in (b"sk-plain", b"abcdefghijk", b"token-of-the-caller"):
        assert secret not in everything
    assert all(span.status == "error" for span in collector.spans)


def test_unsampled_request_starts_no_trace_of_its_own(make_traced: MakeTraced, collector: Collector) -> None:
    """Spans of the application's own code in an unsampled request are not kept either, and name its trace."""
    kit = ProdKit(only=("tracing",))
    app = make_traced(kit=kit, TRACING_SAMPLING_RATE=0.0)

    @app.get("/quiet")
    def quiet() -> dict[str, object]:
        with trace.get_tracer("shop").start_as_current_span("mine") as span, kit.span("more") as more:
            more.set("a", 1)
            ids = span.get_span_context()
        return {"theirs": f"{ids.trace_id:032x}", "ours": kit.tracing.trace_id, "kept": kit.tracing.sampled}

    told = app.test_client().get("/quiet").get_json()
    flush(app)

    assert collector.spans == []
    assert told == {"theirs": told["ours"], "ours": told["ours"], "kept": False}


def test_decorator_measures_each_call(make_traced: MakeTraced, collector: Collector) -> None:
    """`@prod.span` measures calls, recursive ones and coroutines too, and keeps the function as it is."""
    kit = ProdKit(only=("tracing",))

    @kit.span("count down")
    def count(number: int) -> int:
        """Count."""
        return count(number - 1) if number else 0

    @kit.span("later")
    async def later() -> str:
        return "x"

    assert (count(3), count.__doc__) == (0, "Count.")
    app = make_traced(kit=kit)

    @app.get("/count")
    def view() -> str:
        import asyncio

        return asyncio.run(later()) + str(count(2))

    assert app.test_client().get("/count").text == "x0"
    flush(app)

    assert sorted(span.name for span in collector.spans) == ["GET /count", *["count down"] * 3, "later"]


def test_two_apps_send_to_their_own_collectors(make_traced: MakeTraced, collector: Collector) -> None:
    """Two applications in one process do not see one another's spans, users' own included."""
    tracer = trace.get_tracer("both")
    with Collector() as second:
        apps = [make_traced(SERVICE_NAME=name, OTLP_ENDPOINT=one.url) for name, one in
                (("first", collector), ("second", second))]  # fmt: skip
        for app in apps:
            app.add_url_rule("/", view_func=lambda: tracer.start_span("own").end() or "x")
        for app in apps:
            app.test_client().get("/")
            flush(app)

        for name, one in (("first", collector), ("second", second)):
            assert [span.name for span in one.spans] == ["own", "GET /"]
            assert {span.resource["service.name"] for span in one.spans} == {name}


def test_spans_are_counted(make_traced: MakeTraced, collector: Collector) -> None:
    """What left is counted as exported."""
    app = make_traced()
    for _ in range(3):
        app.test_client().get("/x")
    flush(app)

    assert (spans_total(app, "exported"), len(collector.spans)) == (3, 3)


def test_grpc_arrives_with_its_headers(make_app: MakeApp) -> None:
    """The same spans go over gRPC, with the key of the collector."""
    with Collector(with_grpc=True) as collector:
        app = make_app(
            only=("tracing",), OTLP_ENDPOINT=f"http://127.0.0.1:{collector.grpc_port}", OTLP_PROTOCOL="grpc",
            OTLP_HEADERS="x-key=abc", TRACING_SAMPLING_RATE=1,
        )  # fmt: skip
        app.test_client().get("/x")
        flush(app)

        assert [span.name for span in collector.spans] == ["GET"]
        assert collector.headers[0]["x-key"] == "abc"
        app.extensions["prod"].lifecycle.close()


def test_http_carries_its_headers(make_traced: MakeTraced, collector: Collector) -> None:
    """The key of the collector goes with each message, and stands nowhere else."""
    app = make_traced(OTLP_HEADERS="Api-Key=very-secret-key")
    app.test_client().get("/x")
    flush(app)

    assert collector.headers[0]["api-key"] == "very-secret-key"
    assert b"very-secret-key" not in collector.bodies[0]


def test_console_writes_a_line_per_span(make_app: MakeApp, capsys: pytest.CaptureFixture[str]) -> None:
    """TRACING_EXPORTER=console writes JSON lines to the error output: standard output is the log's."""
    app = make_app(only=("tracing",), TRACING_ENABLED=True, TRACING_EXPORTER="console", TRACING_SAMPLING_RATE=1)
    app.test_client().get("/x")
    flush(app)

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert '"name": "GET"' in captured.err


def test_without_traces_everything_is_there_and_does_nothing(make_app: MakeApp) -> None:
    """Off, `prod.span` and `prod.tracing` work, and say nothing."""
    kit = ProdKit(only=("tracing",))
    app = make_app(kit=kit)

    @app.get("/")
    def view() -> dict[str, object]:
        with kit.span("x", a=1) as span:
            span.set("b", 2)
        kit.tracing.set("c", 3)
        return {"carrier": kit.tracing.carrier(), "trace": kit.tracing.trace_id}

    assert app.test_client().get("/").get_json() == {"carrier": {}, "trace": ""}


def test_nothing_is_imported_when_off() -> None:
    """Without an address nothing of OpenTelemetry is imported; with one, nothing of the SDK before the start."""
    code = (
        "import sys; from flask import Flask; from flask_prod import ProdKit\n"
        "app = Flask('shop'); app.config.update(ENVIRONMENT='test', {0})\n"
        "prod = ProdKit(app, only=('metrics', 'proxy', 'tracing')); prod.tracing; prod.span('x')(len)\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    for config in ("", "OTLP_ENDPOINT='http://127.0.0.1:9'"):
        done = subprocess.run(
            [sys.executable, "-c", code.format(config)], capture_output=True, text=True, check=True
        )
        assert done.stdout == "[]\n"


def test_missing_extra_names_the_command(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the libraries the start ends with the exact pip command."""
    from importlib.metadata import PackageNotFoundError

    from flask_prod.components.tracing import component
    from flask_prod.core.errors import ConfigError

    def absent(name: str) -> None:
        if "grpc" in name:
            raise PackageNotFoundError(name)

    monkeypatch.setattr(component, "distribution", absent)
    with pytest.raises(ConfigError, match=r"pip install 'flask-prod\[tracing-grpc\]'"):
        make_app(only=("tracing",), OTLP_ENDPOINT="grpc://c:4317")


def test_start_that_fails_leaves_requests_alone(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An SDK that cannot start is logged, and the service answers without traces."""
    from flask_prod.components.tracing.engine import AppTracing

    def fail(_: AppTracing) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(AppTracing, "_build", fail)
    app = make_app(only=("tracing",), OTLP_ENDPOINT="http://127.0.0.1:9", TRACING_SAMPLING_RATE=1)
    with caplog.at_level(logging.ERROR):
        assert app.test_client().get("/x").status_code == 404

    assert [record.getMessage() for record in caplog.records] == [
        "Traces could not be started; requests are served without"
    ]
