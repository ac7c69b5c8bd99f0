from __future__ import annotations

from typing import Any, ClassVar

import pytest
from flask import Flask

from flask_prod.core.component import Contribution, Event, Installed
from flask_prod.core.errors import ConfigError, MissingExtra, NotInstalled, SetupFinished
from flask_prod.core.kit import Kit, current_state, state_of
from flask_prod.core.settings import Section

from .rooms import app_with, kit_of, room


class Colour(Section, frozen=True, kw_only=True):
    """The settings of one test room."""

    prefix: ClassVar[str] = "ROOM_"

    colour: str = "white"
    size: int = 1


def painted(_app: Flask, settings: Any, _kit: Installed) -> Contribution[str]:
    return Contribution(handle=settings.colour)


def refuse(*problems: str) -> Any:
    def install(_app: Flask, _settings: Section, _kit: Installed) -> Contribution[None]:
        raise ConfigError(problems)

    return install


def test_second_init_app_is_refused_with_advice() -> None:
    """Installing twice on one application is a mistake that says what to do instead."""
    app = app_with(room("a"))

    with pytest.raises(SetupFinished, match=r"'shop' already has a kit\. Call init_app once per application"):
        Kit(app)


def test_one_kit_serves_several_apps_with_different_settings() -> None:
    """What a handle gives belongs to the current application."""
    kit = kit_of(room("wall", Colour, install=painted))
    apps = {}
    for colour in ("red", "blue"):
        apps[colour] = Flask(colour)
        apps[colour].config.update(ENVIRONMENT="test", ROOM_COLOUR=colour)
        kit.init_app(apps[colour])

    for colour, app in apps.items():
        with app.app_context():
            assert kit.get("wall") == colour
            assert current_state().service.namespace == f"{colour}:test"


def test_problems_of_all_rooms_are_reported_together() -> None:
    """What several components refuse at installation is one error."""
    with pytest.raises(ConfigError) as caught:
        app_with(room("a", install=refuse("A is wrong.")), room("b", install=refuse("B is wrong.", "B is late.")))

    assert str(caught.value) == "flask-prod cannot start:\n  - A is wrong.\n  - B is wrong.\n  - B is late."


def test_missing_library() -> None:
    """A room's missing library is one problem of a start; a command's is a sentence that tells of no start."""
    missing = MissingExtra("backups", "boto3", "s3")
    with pytest.raises(ConfigError) as caught:
        app_with(room("a", install=refuse("A is wrong.", *missing.problems)))

    assert str(missing) == missing.format_message() == "backups needs boto3: pip install 'flask-prod[s3]'"
    assert str(caught.value) == f"flask-prod cannot start:\n  - A is wrong.\n  - {missing}"


def test_what_was_opened_is_closed_when_the_start_fails() -> None:
    """A room that was installed before another one refused is closed again."""
    closed: list[str] = []

    with pytest.raises(ConfigError):
        app_with(room("a", close=lambda: closed.append("a")), room("b", install=refuse("B is wrong.")))

    assert closed == ["a"]


def test_problems_of_settings_are_reported_together() -> None:
    """Service and room settings are checked in one go."""
    with pytest.raises(ConfigError) as caught:
        app_with(room("a", Colour), ROOM_SIZE="x", PORT=0, ROOM_COLOR="red")

    assert [problem.split()[0] for problem in caught.value.problems] == ["PORT", "ROOM_SIZE", "ROOM_COLOR"]


def test_failed_installation_leaves_no_state() -> None:
    """An application whose kit was refused can be given one again."""
    app = Flask("shop")
    app.config.update(ENVIRONMENT="test", PORT="x")
    with pytest.raises(ConfigError):
        kit_of(room("a")).init_app(app)
    app.config["PORT"] = 8000

    kit_of(room("a")).init_app(app)

    assert state_of(app).service.port == 8000


def test_handle_of_an_earlier_room() -> None:
    """A component is given the handle of one installed before it, None for one that is left out."""
    seen: list[object] = []

    def look(_app: Flask, _settings: Section, kit: Installed) -> Contribution[None]:
        seen.extend((kit.handle("inner"), kit.handle("absent")))
        return Contribution(handle=None)

    app_with(room("outer", requires=("inner",), install=look), room("inner", handle="the inner one"))

    assert seen == ["the inner one", None]


def test_event_reaches_listeners_although_one_fails(caplog: pytest.LogCaptureFixture) -> None:
    """A listener that raises is logged and keeps the event from nobody."""
    heard: list[str] = []

    def fail(_event: Event) -> None:
        raise RuntimeError("deaf")

    def install(_app: Flask, _settings: Section, kit: Installed) -> Contribution[Installed]:
        return Contribution(handle=kit)

    app = app_with(
        room("broken", on_event=fail), room("listener", on_event=lambda e: heard.append(e.name)),
        room("speaker", install=install),
    )  # fmt: skip
    state_of(app).contributions["speaker"].handle.emit(Event("prod.test.happened", "It happened."))

    assert heard == ["prod.test.happened"]
    assert "broken could not take event prod.test.happened" in caplog.text


def test_room_left_out() -> None:
    """Asking for a room that the kit leaves out says so."""
    with pytest.raises(NotInstalled, match="jobs is left out of this kit"):
        Kit(without=("jobs",)).get("jobs")


def test_handle_without_application() -> None:
    """A handle that needs an application says how to give it one."""
    with pytest.raises(NotInstalled, match=r"with app\.app_context"):
        kit_of(room("a")).get("a")


def test_application_without_kit() -> None:
    """Asking for the kit of an application that has none says what to call."""
    with pytest.raises(NotInstalled, match=r"call ProdKit\(app\)"):
        state_of(Flask("bare"))


def test_secret_key_and_body_limit_reach_flask() -> None:
    """Flask's own settings are filled where the application left them empty, and only there."""
    app = app_with(room("a"), MAX_CONTENT_LENGTH=None)
    own = Flask("own")
    own.secret_key = "mine"
    own.config.update(ENVIRONMENT="test", MAX_CONTENT_LENGTH=10)
    kit_of(room("a")).init_app(own)

    assert app.config["MAX_CONTENT_LENGTH"] == 16 * 1024**2
    assert (own.secret_key, own.config["MAX_CONTENT_LENGTH"]) == ("mine", 10)
