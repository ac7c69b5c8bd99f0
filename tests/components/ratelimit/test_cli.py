"""`flask prod limits`."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner, Result

from flask_prod import ProdKit
from tests.apps import MakeApp
from tests.servers import free_port


def shop(make_app: MakeApp, url: str) -> Any:
    prod = ProdKit(only=("redis", "ratelimit"))
    app = make_app(kit=prod, REDIS_URL=url)
    app.add_url_rule("/once", "once", prod.limiter.policy("once", "1/1m block 1h")(lambda: "ok"))
    return app


def run(app: Any, *words: str) -> Result:
    command = app.extensions["prod"].contributions["ratelimit"].commands[0]
    return CliRunner().invoke(command, words)


def test_status_and_reset(make_app: MakeApp, redis_url: str) -> None:
    """An operator sees who is shut out, and lets him in again."""
    app = shop(make_app, redis_url)
    client = app.test_client()
    assert [client.get("/once").status_code for _ in range(2)] == [200, 429]

    lines = {line.split()[0]: line.split() for line in run(app, "status", "127.0.0.1").output.splitlines()}
    assert lines["once"][1:3] == ["0", "1"]
    assert lines["once"][-1] == "s"
    assert lines["public"][1:] == ["99", "100", "60", "s", "no"]

    assert run(app, "reset", "127.0.0.1", "--policy", "once").output == "1 counter forgotten.\n"
    assert client.get("/once").status_code == 200
    assert run(app, "reset", "127.0.0.1").output == "2 counters forgotten.\n"


def test_consume(make_app: MakeApp, redis_url: str) -> None:
    """An operator may use up points; what the command counts, the application sees."""
    app = shop(make_app, redis_url)
    assert run(app, "consume", "127.0.0.1", "public", "--cost", "40").output == "Allowed, 60 left.\n"
    assert run(app, "consume", "127.0.0.1", "once").output == "Allowed, 0 left.\n"
    refused = run(app, "consume", "127.0.0.1", "once")
    assert (refused.exit_code, refused.output) == (1, "Error: Refused for 3600 s.\n")

    assert app.test_client().get("/once").status_code == 429
    assert app.test_client().get("/").headers["X-RateLimit-Remaining"] == "59"


@pytest.mark.parametrize("words", [("consume", "127.0.0.1", "nope"), ("reset", "127.0.0.1", "--policy", "nope")])
def test_an_unknown_policy_is_an_error(make_app: MakeApp, words: tuple[str, ...]) -> None:
    """A misspelt name is told with those that exist."""
    result = run(shop(make_app, ""), *words)
    assert result.exit_code == 1
    assert "There is no policy 'nope'; there are public, authenticated" in result.output


def test_looking_counts_nothing(make_app: MakeApp, redis_url: str) -> None:
    """Asking for the status twice says the same."""
    app = shop(make_app, redis_url)
    answers = {run(app, "status", "user:42").output for _ in range(3)}

    assert len(answers) == 1
    assert "authenticated         500      500" in answers.pop()


def test_without_redis_it_says_so(make_app: MakeApp) -> None:
    """The command's own process has counted nothing, and there is nobody else to ask."""
    assert "There is no REDIS_URL" in run(shop(make_app, ""), "status", "127.0.0.1").output


def test_an_outage_is_an_error_with_a_reason(make_app: MakeApp) -> None:
    """Exit code 1 and one sentence instead of a traceback."""
    result = run(shop(make_app, f"redis://127.0.0.1:{free_port()}/0"), "status", "127.0.0.1")

    assert result.exit_code == 1
    assert result.output.startswith("Error: Redis failed: ConnectionError.")


def test_help_has_examples(make_app: MakeApp) -> None:
    """The help of the group shows how it is used."""
    assert "flask prod limits reset 203.0.113.7 --policy checkout" in run(shop(make_app, ""), "--help").output
