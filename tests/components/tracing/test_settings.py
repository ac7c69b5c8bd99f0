"""Addresses, protocols, and what is wrong with them."""

from __future__ import annotations

import pytest

from flask_prod.components.tracing.settings import (
    GRPC,
    HTTP,
    TracingSettings,
    destination,
    parse_headers,
)
from flask_prod.core.errors import ConfigError
from flask_prod.core.values import Secret, SecretUrl
from tests.apps import MakeApp


@pytest.mark.parametrize(
    ("endpoint", "protocol", "address"),
    [
        ("http://c:4318", HTTP, "http://c:4318/v1/traces"),
        ("http://c:4318/", HTTP, "http://c:4318/v1/traces"),
        ("http://c:4318/v1/traces", HTTP, "http://c:4318/v1/traces"),
        ("https://c/otlp", HTTP, "https://c/otlp/v1/traces"),
        ("http://c:4317", GRPC, "http://c:4317"),
        ("https://c:4317", GRPC, "https://c:4317"),
        ("c:4317", GRPC, "http://c:4317"),
        ("grpc://c", GRPC, "http://c:4317"),
        ("grpcs://c:9", GRPC, "https://c:9"),
        ("http://[::1]:4317", GRPC, "http://[::1]:4317"),
        ("", HTTP, "http://localhost:4318/v1/traces"),
    ],
)
def test_where_spans_go(endpoint: str, protocol: str, address: str) -> None:
    """Scheme and port say how a collector is spoken to."""
    found = destination(TracingSettings(otlp_endpoint=SecretUrl(endpoint)))

    assert (found.protocol, found.address) == (protocol, address)


def test_protocol_can_be_said() -> None:
    """OTLP_PROTOCOL wins over the port."""
    url = SecretUrl("http://c:9999")

    assert destination(TracingSettings(otlp_endpoint=url, otlp_protocol="grpc")).address == "http://c:9999"
    assert (
        destination(TracingSettings(otlp_endpoint=SecretUrl("c:4317"), otlp_protocol="http/protobuf")).protocol
        == HTTP
    )


def test_library_variables_fill_what_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an address of ours the exporter reads OpenTelemetry's own variables; with one, ours wins."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://theirs:4317")

    assert destination(TracingSettings(enabled=True)).protocol == GRPC
    assert destination(TracingSettings(enabled=True)).address == ""
    ours = destination(TracingSettings(otlp_endpoint=SecretUrl("http://ours:4318")))
    assert ours.address == "http://ours:4318/v1/traces"


def test_jaeger_is_otlp_at_its_address() -> None:
    """Jaeger takes OTLP; its address wins when the exporter is jaeger."""
    settings = TracingSettings(exporter="jaeger", jaeger_endpoint=SecretUrl("http://jaeger:4317"))

    assert destination(settings).protocol == GRPC
    assert settings.on


def test_when_traces_are_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address switches them on, TRACING_ENABLED decides, and OpenTelemetry's own switch wins."""
    url = SecretUrl("http://c:4318")

    assert not TracingSettings().on
    assert TracingSettings(otlp_endpoint=url).on
    assert not TracingSettings(otlp_endpoint=url, enabled=False).on
    assert TracingSettings(enabled=True).on
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert not TracingSettings(enabled=True).on


def test_problems_are_named_without_secrets(make_app: MakeApp) -> None:
    """What is wrong is said by key, with the remedy; neither key nor address is repeated."""
    with pytest.raises(ConfigError) as caught:
        make_app(
            only=("tracing",),
            OTLP_ENDPOINT="ftp://user:pw-in-url@c",
            JAEGER_ENDPOINT="http://jaeger:14268/api/traces",
            OTLP_HEADERS="hunter2hunter2",
        )

    text = str(caught.value)
    assert "OTLP_ENDPOINT must be an address" in text
    assert "write http://jaeger:4318" in text
    assert "OTLP_HEADERS must be name=value pairs" in text
    assert "hunter2" not in text
    assert "pw-in-url" not in text


def test_headers_are_pairs() -> None:
    """Values may be percent-encoded; names are lower case, as gRPC demands."""
    assert parse_headers("Api-Key=abc%2C1, x = y=z") == {"api-key": "abc,1", "x": "y=z"}
    assert parse_headers("") == {}
    assert parse_headers("nothing") is None
    assert repr(TracingSettings(otlp_headers=Secret("k=v"))).find("k=v") == -1
