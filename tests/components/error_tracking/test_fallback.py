"""What answers for a function that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, abort
from werkzeug.exceptions import HTTPException, NotFound

from flask_prod import ProdKit
from flask_prod.components.error_tracking import fallback
from tests.apps import MakeApp
from tests.servers import HttpSink

from .conftest import Sent, items


@pytest.fixture
def prod() -> ProdKit:
    return ProdKit(only=("error_tracking", "metrics"))


@pytest.fixture
def shop(prod: ProdKit, make_app: MakeApp, http_sink: HttpSink) -> Flask:
    return make_app(kit=prod, SENTRY_DSN=http_sink.dsn, PROPAGATE_EXCEPTIONS=False)


def test_view(prod: ProdKit, shop: Flask, sent: Sent) -> None:
    """A view that fails answers what its fallback gives for the same arguments; that is reported once."""

    def cached(number: int) -> dict[str, int]:
        return {"cached": number}

    @shop.get("/items/<int:number>")
    @prod.fallback(cached, on=(LookupError, OSError), name="items")
    def item(number: int) -> Any:
        if number == 1:
            raise KeyError(number)
        if number == 2:
            raise ValueError("not expected")
        return {"fresh": number}

    client = shop.test_client()
    assert [client.get(f"/items/{number}").json for number in (0, 1)] == [{"fresh": 0}, {"cached": 1}]
    assert client.get("/items/2").status_code == 500
    page = client.get("/metrics").text
    shop.extensions["prod"].lifecycle.close()
    first, second = sent(2)

    assert 'flask_prod_fallbacks_total{name="items"} 1.0' in page
    assert first["exception"]["values"][-1]["type"] == "KeyError"
    assert first["extra"] == {"fallback": "items"}
    assert first["exception"]["values"][-1]["mechanism"]["handled"]
    assert second["exception"]["values"][-1]["type"] == "ValueError"


def test_values_are_fresh(prod: ProdKit) -> None:
    """A list given as the answer is another one each time; it works without an application."""

    @prod.fallback([])
    def names() -> list[str]:
        raise OSError

    names().append("a")

    assert names() == []
    assert names.__name__ == "names"


def test_answers_of_http_pass(prod: ProdKit, shop: Flask, http_sink: HttpSink) -> None:
    """`abort` passes unless it was asked for."""

    @prod.fallback("soup")
    def plain() -> str:
        abort(404)

    @prod.fallback("soup", on=NotFound)
    def asked() -> str:
        abort(404)

    with shop.app_context():
        with pytest.raises(HTTPException):
            plain()
        assert asked() == "soup"


def test_storm(prod: ProdKit, shop: Flask, http_sink: HttpSink, caplog: pytest.LogCaptureFixture) -> None:
    """A thousand equal failures are a thousand answers, and a handful of reports and log lines."""

    @prod.fallback(0)
    def stock() -> int:
        return 1 // 0

    with shop.test_request_context():
        assert sum(stock() for _ in range(1000)) == 0
    shop.extensions["prod"].lifecycle.close()

    assert 1 <= len(items(http_sink, "event")) <= 8
    assert 1 <= len(caplog.messages) <= 8


def test_coroutines(prod: ProdKit) -> None:
    """An asynchronous function is awaited, and so is its fallback."""

    async def other(number: int) -> int:
        return -number

    @prod.fallback(other)
    async def fetch(number: int) -> int:
        raise TimeoutError

    assert asyncio.run(fetch(7)) == -7


def test_without_sentry(make_app: MakeApp, prod: ProdKit, caplog: pytest.LogCaptureFixture) -> None:
    """Without an address a failure is logged."""

    @prod.fallback(0, name="stock")
    def stock() -> int:
        return 1 // 0

    with make_app(kit=prod).app_context():
        assert stock() == 0
    assert caplog.messages == ["stock failed, its fallback answers: integer division or modulo by zero"]


def test_generators() -> None:
    """A generator is refused: it has answered before it can fail."""

    def numbers() -> Iterator[int]:
        yield 1

    with pytest.raises(TypeError, match=r"cannot guard the generator .*numbers"):
        fallback([])(numbers)
