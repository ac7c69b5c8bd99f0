"""What becomes a message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flask_prod.components.alerts import AlertSettings
from flask_prod.components.alerts import engine as module
from flask_prod.components.alerts.engine import AppAlerts, Instruments
from flask_prod.components.alerts.sender import Message, Sender
from flask_prod.core.component import Event
from flask_prod.core.ports import NoMeter
from flask_prod.core.record import RequestRecord
from flask_prod.core.settings import ServiceSettings

ENVIRON = {"REQUEST_METHOD": "GET", "PATH_INFO": "/pay", "wsgi.url_scheme": "http", "SERVER_NAME": "shop"}
AWAY = Event("prod.redis.degraded", "Redis is away: redis://user:hunter2@cache", severity="error")
BACK = Event("prod.redis.recovered", "Redis is back.")


class Kept(Sender):
    """A sender that keeps what it is given."""

    def __init__(self) -> None:
        super().__init__([])
        self.messages: list[Message] = []

    def send(self, message: Message) -> None:
        self.messages.append(message)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


@pytest.fixture
def watch(tmp_path: Path, clock: Clock) -> Callable[..., AppAlerts]:
    """Give a factory of processes that watch the same service."""

    def make(total: Callable[[str], float] | None = None, **settings: Any) -> AppAlerts:
        nothing = NoMeter().counter("", "")
        instruments = Instruments(nothing, NoMeter().gauge("", ""), total)
        service = ServiceSettings(service_name="shop", environment="test")
        return AppAlerts(AlertSettings(**settings), service, Kept(), instruments, lambda: tmp_path)

    return make


def failed(alerts: AppAlerts, times: int = 1, *, status: int = 500, operational: bool = False) -> None:
    for _ in range(times):
        record = RequestRecord(ENVIRON.copy(), "a" * 32, 0.0)
        record.status, record.route, record.operational = status, "/pay", operational
        record.error = ValueError("no money") if status == 500 else None
        alerts.observe(record)


def titles(alerts: AppAlerts) -> list[str]:
    return [message.title for message in alerts.sender.messages]  # type: ignore[attr-defined]  # it is `Kept`


def test_rate(watch: Callable[..., AppAlerts], clock: Clock) -> None:
    """Ten failures in a minute are one message that says where and what; three calm minutes are another."""
    alerts = watch()
    alerts.start()
    failed(alerts, 8)
    failed(alerts, 2, status=503)
    failed(alerts, 5, status=404)
    failed(alerts, 5, status=503, operational=True)
    for _ in range(5):
        clock.now += 2
        alerts.watch()
    for _ in range(200):
        clock.now += 2
        alerts.watch()

    begun, ended = alerts.sender.messages  # type: ignore[attr-defined]  # it is `Kept`
    assert begun.title == "[shop test] 10 requests a minute fail"
    assert begun.body.splitlines()[:3] == [
        "10 requests failed in the last minute, 10 or more are an alert.",
        "- /pay: ValueError, 8 in this worker",
        "- /pay: 503, 2 in this worker",
    ]
    assert "host " in begun.body
    assert (ended.title, ended.kind) == ("[shop test] Recovered: few requests fail", "success")
    alerts.close()


def test_leader(watch: Callable[..., AppAlerts], clock: Clock) -> None:
    """Of two workers one tells; the other takes over when it ends, and does not tell again."""
    total = [0.0]
    first, second = (watch(lambda name: total[0]) for _ in range(2))
    for alerts in (first, second):
        alerts.watch()
    total[0] = 50
    clock.now += 2
    for alerts in (second, first):
        alerts.watch()
    assert (len(titles(first)), titles(second)) == (1, [])

    first.close()
    for _ in range(5):
        total[0] += 20
        clock.now += 2
        second.watch()

    assert titles(second) == []
    second.close()


def test_events(watch: Callable[..., AppAlerts], clock: Clock) -> None:
    """An outage that both workers see, twice, is one message; so is its end, which makes the next one news."""
    first, second = watch(), watch()
    for alerts in (first, second, first):
        alerts.on_event(AWAY)
    for alerts in (second, first):
        alerts.on_event(BACK)
    second.on_event(AWAY)

    assert titles(first) == ["[shop test] prod.redis.degraded: error"]
    assert titles(second) == [
        "[shop test] Recovered: prod.redis.recovered",
        "[shop test] prod.redis.degraded: error",
    ]
    assert "hunter2" not in first.sender.messages[0].body  # type: ignore[attr-defined]  # it is `Kept`


def test_reminder(watch: Callable[..., AppAlerts], clock: Clock) -> None:
    """An event that comes again is told again after an hour."""
    alerts = watch()
    for _ in range(100):
        alerts.on_event(Event("prod.job.failed", "Job mail failed.", severity="error"))
        clock.now += 60

    assert len(titles(alerts)) == 2


@pytest.mark.parametrize(("severity", "told"), [("warning", 3), ("error", 2), ("critical", 1)])
def test_severity(watch: Callable[..., AppAlerts], clock: Clock, severity: str, told: int) -> None:
    """ALERTS_SEVERITY is the least that is told."""
    alerts = watch(severity=severity)
    for name in ("debug", "info", "warning", "error", "critical", "odd"):
        alerts.on_event(Event(f"prod.thing.{name}", "Something happened.", severity=name))

    assert len(titles(alerts)) == told


def test_state(watch: Callable[..., AppAlerts], clock: Clock) -> None:
    """An event that says in its severity which way it went ends what it began; another of its family does not."""
    alerts = watch()
    alerts.on_event(Event("prod.health.changed", "Unhealthy.", severity="error"))
    alerts.on_event(Event("prod.health.started", "Started."))
    alerts.on_event(Event("prod.health.changed", "Healthy."))

    assert titles(alerts) == [
        "[shop test] prod.health.changed: error",
        "[shop test] Recovered: prod.health.changed",
    ]
