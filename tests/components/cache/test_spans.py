"""The cache as spans of the request that asks it."""

from __future__ import annotations

from flask_prod import ProdKit
from tests.apps import MakeApp
from tests.otlp import Collector


def test_lookups_say_whether_it_was_there(make_app: MakeApp) -> None:
    """A miss, what is stored then, and the hit of the next request are measured; keys stand nowhere."""
    kit = ProdKit(only=("tracing", "cache"))
    with Collector() as collector:
        app = make_app(kit=kit, OTLP_ENDPOINT=collector.url, TRACING_SAMPLING_RATE=1.0)

        @app.get("/<name>")
        @kit.cache.cached(ttl=60)
        def page(name: str) -> str:
            kit.cache.set("own-key", name)
            return name

        for _ in range(2):
            app.test_client().get("/somebody")
        app.extensions["prod"].lifecycle.close()

    roots = [span for span in collector.spans if span.kind == "server"]
    first, second = ([s for s in collector.spans if s.parent == root.span_id] for root in roots)
    gets = [span.attributes["cache.hit"] for span in first if span.name == "cache get"]
    assert gets
    assert not any(gets)
    assert [span.attributes["cache.stored"] for span in first if span.name == "cache set"] == [True, True]
    assert [span.attributes["cache.hit"] for span in second if span.name == "cache get"] == [True]
    assert {span.attributes["cache.store"] for span in (*first, *second)} == {"memory"}
    assert not any("own-key" in str(span.attributes) or "somebody" in str(span.attributes) for span in first)


def test_nothing_is_wrapped_without_traces(make_app: MakeApp) -> None:
    """Without traces the store is asked as it is."""
    store = make_app(only=("cache",)).extensions["prod"].contributions["cache"].handle.store

    assert "get" not in vars(store)
