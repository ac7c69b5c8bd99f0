"""The scrape: who gets it, in which format, and what is in it."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY, Counter
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from flask_prod import ConfigError
from flask_prod.components.metrics import exposition
from tests.apps import MakeApp

ONLY = ("metrics",)


@pytest.mark.parametrize(
    ("peer", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("10.0.0.7", {}, 200),
        ("203.0.113.9", {}, 404),
        ("203.0.113.9", {"X-Forwarded-For": "127.0.0.1"}, 404),
        ("127.0.0.1", {"X-Forwarded-For": "203.0.113.9"}, 404),
    ],
)
def test_without_token(make_app: MakeApp, peer: str, headers: dict[str, str], status: int) -> None:
    """Without METRICS_TOKEN a direct peer nearby may scrape, and nobody else learns that there is something."""
    client = make_app(only=ONLY).test_client()

    answer = client.get("/metrics", headers=headers, environ_base={"REMOTE_ADDR": peer})

    assert answer.status_code == status


def test_direct_peer(make_app: MakeApp) -> None:
    """The proxy room's word on who really called outranks the rewritten address."""
    client = make_app(only=ONLY).test_client()

    answer = client.get("/metrics", environ_base={"REMOTE_ADDR": "127.0.0.1", "flask_prod.peer": "203.0.113.9"})

    assert answer.status_code == 404


@pytest.mark.parametrize(
    ("given", "status"),
    [("Bearer s3cret", 200), ("bearer s3cret", 200), ("Bearer wrong", 404), ("Basic s3cret", 404), ("", 404)],
)
def test_with_token(make_app: MakeApp, given: str, status: int) -> None:
    """With METRICS_TOKEN the token decides, wherever the call comes from."""
    client = make_app(only=ONLY, METRICS_TOKEN="s3cret").test_client()
    headers = {"Authorization": given} if given else {}

    far = client.get("/metrics", headers=headers, environ_base={"REMOTE_ADDR": "203.0.113.9"})

    assert far.status_code == client.get("/metrics", headers=headers).status_code == status


def test_two_tokens(make_app: MakeApp) -> None:
    """While METRICS_TOKEN is replaced, the new and the old one are good; a wrong one is told once."""
    client = make_app(only=ONLY, METRICS_TOKEN="new, old").test_client()
    answers = [
        client.get("/metrics", headers={"Authorization": f"Bearer {one}"})
        for one in ("new", "old", "new,old", "other")
    ]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 404]


def test_methods(make_app: MakeApp) -> None:
    """HEAD is answered without a body, POST as if nothing were there."""
    client = make_app(only=ONLY).test_client()

    assert client.head("/metrics").status_code == 200
    assert client.post("/metrics").status_code == 404


def test_reloader(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is there under the development server's reloader too."""
    monkeypatch.setenv("WERKZEUG_RUN_MAIN", "true")

    assert make_app(only=ONLY).test_client().get("/metrics").status_code == 200


def test_hooks_of_the_application(make_app: MakeApp) -> None:
    """A login wall in front of every view does not hide the scrape, nor count it."""
    app = make_app(only=ONLY)
    app.before_request(lambda: ("sign in", 401))
    client = app.test_client()
    client.get("/metrics")

    answer = client.get("/metrics")

    assert answer.status_code == 200
    assert 'flask_http_request_total{method="GET",status="200"}' not in answer.text


def test_openmetrics(make_app: MakeApp) -> None:
    """Who asks for OpenMetrics gets it, whole and valid."""
    app = make_app(only=ONLY)
    app.test_client().get("/")

    answer = app.test_client().get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})

    assert answer.content_type.startswith("application/openmetrics-text")
    assert {family.name for family in text_string_to_metric_families(answer.text)} >= {"flask_http_request"}


def test_names(make_app: MakeApp) -> None:
    """`name[]` narrows the scrape."""
    text = make_app(only=ONLY).test_client().get("/metrics?name[]=flask_exporter_info").text

    assert [line.split("{")[0] for line in text.splitlines() if line[0] != "#"] == ["flask_exporter_info"]


@pytest.mark.parametrize("container", [(300, 1000), None])
def test_memory(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, container: tuple[int, int] | None) -> None:
    """Use and limit of memory are the container's, and the machine's where there is no limit."""
    monkeypatch.setattr(exposition, "of_container", lambda: container)
    monkeypatch.setattr(exposition, "of_machine", lambda: (7000, 9000))
    page = make_app(only=ONLY).test_client().get("/metrics").text
    used, limit = container or (7000, 9000)

    assert f"\nflask_prod_memory_bytes {used:.1f}\n" in page
    assert f"\nflask_prod_memory_limit_bytes {limit:.1f}\n" in page


def test_metrics_of_others(make_app: MakeApp) -> None:
    """Metrics that the application made with prometheus_client itself, and those of the process, are there."""
    plain = Counter("plain_total", "Made by hand")
    try:
        plain.inc()
        text = make_app(only=ONLY).test_client().get("/metrics").text
    finally:
        REGISTRY.unregister(plain)

    assert "plain_total 1.0" in text
    assert "process_resident_memory_bytes" in text
    assert "python_info" in text


def test_switched_off(make_app: MakeApp) -> None:
    """METRICS_ENABLED=false leaves no page."""
    assert make_app(only=ONLY, METRICS_ENABLED=False).test_client().get("/metrics").status_code == 404


def test_bad_settings(make_app: MakeApp) -> None:
    """A path that is none and buckets out of order are reported together."""
    with pytest.raises(ConfigError) as caught:
        make_app(only=ONLY, METRICS_PATH="metrics", METRICS_BUCKETS="1,0.5")

    assert [problem.split()[0] for problem in caught.value.problems] == ["METRICS_PATH", "METRICS_BUCKETS"]
