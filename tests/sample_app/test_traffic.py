from __future__ import annotations

import pytest

from sample_app.traffic import main, percentile
from tests.sample_app.conftest import StartShop
from tests.sample_app.shop import PASSWORD
from tests.servers import HttpSink, free_port


def test_traffic_finds_a_healthy_shop(
    start_shop: StartShop, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Buyers buy, nothing is oversold, and the exit code is 0."""
    shop = start_shop(REDIS_URL=redis_url)
    people = ["--admin", "boss@example.com", "--admin-password", PASSWORD]

    code = main(["--url", shop.url, "--buyers", "6", "--seconds", "3", "--pace", "0", "--mail-wait", "0", *people])

    seen = capsys.readouterr().out
    assert code == 0, seen
    assert "201: " in seen
    assert "oversold     0 products" in seen
    assert "failed       0 answers from 500 up, 0 broken connections" in seen


def test_traffic_notices_lost_mails(
    start_shop: StartShop, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a worker no mail goes out, and the exit code is 1."""
    shop = start_shop(REDIS_URL=redis_url)

    code = main(["--url", shop.url, "--buyers", "3", "--seconds", "2", "--pace", "0", "--mail-wait", "0.5"])

    seen = capsys.readouterr().out
    assert code == 1, seen
    assert "mails        0 of " in seen
    assert "oversold     not checked" in seen


def test_traffic_notices_server_errors(http_sink: HttpSink, capsys: pytest.CaptureFixture[str]) -> None:
    """An answer from 500 up makes the exit code 1."""
    http_sink.mode = 500

    code = main(["--url", http_sink.url, "--buyers", "1", "--seconds", "0.2", "--mail-wait", "0"])

    assert code == 1
    assert "500: " in capsys.readouterr().out


def test_traffic_notices_a_shop_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    """Refused connections are counted by their name, and the exit code is 1."""
    code = main(["--url", f"http://127.0.0.1:{free_port()}", "--buyers", "1", "--seconds", "0.2"])

    assert code == 1
    assert "ConnectionRefusedError" in capsys.readouterr().out


def test_percentiles() -> None:
    """The share of values below is what it says; no values are zero."""
    values = [float(number) for number in range(100)]

    assert [percentile(values, share) for share in (0.5, 0.99, 1)] == [50.0, 99.0, 99.0]
    assert percentile([], 0.5) == 0.0
