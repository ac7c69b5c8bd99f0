"""Own checks, registered before any application exists."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from flask import Flask, current_app, g

from flask_prod import ConfigError, ProdKit
from flask_prod.components.health import HealthFace
from flask_prod.core.component import Check, Component, Contribution, Event, Installed
from flask_prod.core.settings import Section
from tests.apps import MakeApp


def test_before_any_application(make_app: MakeApp) -> None:
    """A check registered at module level runs for every application, each in a context of its own."""
    kit = ProdKit(only=("health",))
    face: HealthFace = kit.get("health")
    seen: list[tuple[str, str]] = []

    @face.check("payments", critical=False, timeout="2s", interval="10s")
    def payments() -> None:
        g.seen = True
        seen.append((current_app.config["COLOUR"], threading.current_thread().name))

    assert callable(payments)
    for colour in ("red", "blue"):
        make_app(kit=kit, COLOUR=colour).test_client().get("/health")

    assert seen == [("red", "prod-health-payments"), ("blue", "prod-health-payments")]


def test_report(make_app: MakeApp) -> None:
    """The face tells the health of the current application."""
    kit = ProdKit(only=("health",))
    app = make_app(kit=kit)
    face: HealthFace = kit.get("health")
    face.check("odd")(lambda: False)
    with app.app_context():
        report = face.report()

    assert (report.state, report.failing) == ("unhealthy", ("odd",))


@pytest.mark.parametrize("name", ["", "live", "ready", "a/b"])
def test_bad_name(name: str) -> None:
    """A name that would not make a path of its own is refused where it is written."""
    with pytest.raises(ValueError, match="cannot be called"):
        HealthFace().check(name)


def test_same_name_twice() -> None:
    """Two checks of one name are a mistake, said at the second."""
    face = HealthFace()
    face.check("payments")(lambda: None)
    with pytest.raises(ValueError, match="already"):
        face.check("payments")


def test_bad_duration() -> None:
    """A time that is none is refused where it is written."""
    with pytest.raises(ValueError, match="not a duration"):
        HealthFace().check("payments", timeout="soon")


class Late(Component[Section, None]):
    """A third party's room, installed after health, with a check and an ear for events."""

    name = "late"

    def __init__(self) -> None:
        self.events: list[Event] = []

    def install(self, app: Flask, settings: Section, kit: Installed) -> Contribution[None]:
        """Contribute a check that fails."""
        check = Check("late", lambda: 1 / 0, critical=False)  # type: ignore[arg-type, return-value]
        return Contribution(handle=None, checks=(check,), on_event=self.events.append)


def test_other_rooms(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks of rooms that are installed later are asked too, and every room hears of a change."""
    late = Late()
    kit = ProdKit(only=("health", "late"))
    load = kit._component
    monkeypatch.setattr(kit, "_component", lambda name: late if name == "late" else load(name))
    app = make_app(kit=kit)

    assert app.test_client().get("/health").text == "degraded"
    assert [event.fields["failing"] for event in late.events] == ["late"]
    assert "ZeroDivisionError" in late.events[0].message


def test_own_check_replaces(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's check takes the place of a room's of the same name."""
    late = Late()
    kit = ProdKit(only=("health", "late"))
    load = kit._component
    monkeypatch.setattr(kit, "_component", lambda name: late if name == "late" else load(name))
    face: HealthFace = kit.get("health")
    face.check("late")(lambda: None)
    app = make_app(kit=kit)

    assert app.test_client().get("/health").text == "healthy"


def test_close(make_app: MakeApp) -> None:
    """A closed application is not ready any more."""
    app = make_app(only=("health",))
    client: Any = app.test_client()
    client.get("/health/ready")
    app.extensions["prod"].lifecycle.close()

    assert client.get("/health/ready").text == "draining"


def test_misspelt_setting(make_app: MakeApp) -> None:
    """A setting that is nearly one of ours is told at start."""
    with pytest.raises(ConfigError, match="did you mean HEALTH_TIMEOUT"):
        make_app(only=("health",), HEALTH_TIMEOT="1s")


def test_kit_that_cannot_start(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """Where another room refuses its settings, health closes without a word of its own."""
    with pytest.raises(ConfigError, match="DATABASE_URL"):
        make_app(only=("database", "health"), DATABASE_URL="nonsense")

    assert "close of health failed" not in caplog.text
