"""Changed settings in a running service: all or nothing, the same in every process, and told once."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
from flask import Flask
from msgspec import Meta

from flask_prod.core.component import Contribution, Event
from flask_prod.core.errors import ConfigError
from flask_prod.core.reload import Reloader
from flask_prod.core.reload_board import Board
from flask_prod.core.settings import Section
from flask_prod.core.values import Secret
from tests.core.rooms import app_with, room


class Greeting(Section, frozen=True, kw_only=True):
    """What is said, and how often."""

    prefix: ClassVar[str] = "GREETING_"
    live: ClassVar[tuple[str, ...]] = ("times", "words")

    times: Annotated[int, Meta(ge=1)] = 1
    words: tuple[str, ...] = ("hello",)
    place: str = "here"
    token: Secret = Secret("")


class Service:
    """Several processes of one service, as far as their settings go."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: list[Event] = []
        self.refuse = False

    def write(self, text: str) -> None:
        """Write the profile, as a deploy tool does: in one step."""
        path = self.folder / "config" / "test.toml"
        path.parent.mkdir(exist_ok=True)
        draft = path.with_suffix(".draft")
        draft.write_text(text)
        os.replace(draft, path)

    def process(self, **config: Any) -> Process:
        """Start a process."""
        return Process(self, config)

    def told(self) -> list[str]:
        """Return the names of all events so far."""
        return [event.name for event in self.events]


class Process:
    """One process of the service."""

    def __init__(self, service: Service, config: dict[str, Any]) -> None:
        self.section = Greeting()
        self._service = service

        def install(app: Flask, section: Any, kit: Any) -> Contribution[Any]:
            self.section = section
            return Contribution(handle=None, reload=self._prepare, on_event=service.events.append)

        greeter = room("greeter", Greeting, install=install)
        self.app = app_with(greeter, RUN_DIR=str(service.folder / "run"), RELOAD_SECONDS=1, **config)
        found = self.app.extensions["prod"].lifecycle.handle("settings")
        assert isinstance(found, Reloader)
        self.reloader = found

    def _prepare(self, section: Greeting) -> Callable[[], None]:
        if self._service.refuse:
            raise ConfigError(["The greeter cannot say that."])
        return lambda: setattr(self, "section", section)

    def look(self) -> None:
        """Look twice, since a file must be at rest."""
        self.reloader.look()
        self.reloader.look()


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    """Give a service in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CONFIG_DIR")
    return Service(tmp_path)


def test_change_reaches_every_process(service: Service) -> None:
    """One process reads the file, all have what it says, and it is told once, with old and new value."""
    first, second = service.process(), service.process()
    service.write('GREETING_TIMES = 3\nGREETING_WORDS = ["good", "morning"]\n')

    for process in (first, second):
        process.look()

    assert first.section == second.section == Greeting(times=3, words=("good", "morning"))
    [event] = service.events
    assert (event.name, event.severity) == ("prod.settings.reloaded", "info")
    assert event.fields == {
        "changed": {
            "GREETING_TIMES": {"old": "1", "new": "3"},
            "GREETING_WORDS": {"old": "hello", "new": "good, morning"},
        }
    }


def test_nothing_changed(service: Service) -> None:
    """Looking again tells nothing and writes nothing, and neither does a file with the same settings."""
    process = service.process()
    process.look()
    assert not (service.folder / "run" / "settings.json").exists()
    service.write("GREETING_TIMES = 1\n")
    process.look()

    assert service.events == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("GREETING_TIMES = = 3", "is not valid TOML"),
        ("GREETING_TIMES = 0", "GREETING_TIMES must be a whole number of at least 1"),
        ('GREETING_TIMES = 3\nGREETING_WORDS = 5\nGREETING_TOKEN = "hunter2"', "GREETING_WORDS must be a list"),
        ('GREETING_TIMES = 3\nGREETING_WORDS = ["${NOBODY}"]', "needs the variable NOBODY"),
        ("GREETING_TIMEZ = 3", "did you mean GREETING_TIMES"),
        ('inherits = "gone"', "inherits 'gone'"),
    ],
)
def test_broken_file(service: Service, text: str, why: str) -> None:
    """A broken file changes nothing, says why once, and is forgotten when it is mended."""
    first, second = service.process(), service.process()
    service.write(text)
    for process in (first, second, first, second):
        process.look()

    assert first.section == second.section == Greeting()
    assert service.told() == ["prod.settings.refused"]
    assert why in service.events[0].message
    assert "hunter2" not in service.events[0].message

    service.write("GREETING_TIMES = 7")
    for process in (first, second):
        process.look()
    assert first.section == second.section == Greeting(times=7)


def test_room_that_refuses(service: Service) -> None:
    """What a room refuses while it prepares is refused as a whole."""
    process = service.process()
    service.refuse = True
    service.write("GREETING_TIMES = 3")
    process.look()

    assert process.section == Greeting()
    assert "The greeter cannot say that." in service.events[0].message


def test_change_that_waits(service: Service) -> None:
    """What cannot change while the service runs is named once, with secrets as fingerprints, and not applied."""
    process = service.process()
    service.write('GREETING_TIMES = 2\nGREETING_PLACE = "there"\nGREETING_TOKEN = "hunter2"\n')
    process.look()
    service.write('GREETING_TIMES = 4\nGREETING_PLACE = "there"\nGREETING_TOKEN = "hunter2"\n')
    process.look()

    assert process.section == Greeting(times=4)
    assert service.told() == ["prod.settings.reloaded", "prod.settings.waiting", "prod.settings.reloaded"]
    waiting = service.events[1]
    assert waiting.severity == "warning"
    assert waiting.fields == {"keys": ["GREETING_PLACE", "GREETING_TOKEN"]}
    assert "GREETING_PLACE here -> there, GREETING_TOKEN none -> secret:" in waiting.message
    assert "hunter2" not in repr(service.events)


def test_follower_keeps_to_what_was_in_force(service: Service) -> None:
    """A process that looks only when the file is broken again has what the leading one put in force."""
    first, second = service.process(), service.process()
    service.write("GREETING_TIMES = 3")
    first.look()
    service.write("GREETING_TIMES = = ")
    first.look()
    second.look()

    assert second.section == first.section == Greeting(times=3)


def test_new_leader(service: Service) -> None:
    """When the leading process ends another one leads, and does not read again what was read."""
    first, second = service.process(), service.process()
    service.write("GREETING_TIMES = 3")
    first.look()
    second.look()
    first.app.extensions["prod"].lifecycle.close()
    second.look()
    assert service.told() == ["prod.settings.reloaded"]
    service.write("GREETING_TIMES = 4")
    second.look()

    assert second.section == Greeting(times=4)


def test_later_process_begins_with_the_file(service: Service) -> None:
    """What was in force in an earlier life of the service does not count against the file of now."""
    first = service.process()
    service.write("GREETING_TIMES = 3")
    first.look()
    first.app.extensions["prod"].lifecycle.close()
    service.write("GREETING_TIMES = 9")
    later = service.process()
    later.look()

    assert later.section == Greeting(times=9)


def test_what_the_process_was_told_wins(service: Service) -> None:
    """app.config and environment still win over a changed file, in the process that has them."""
    first, second = service.process(), service.process(GREETING_TIMES=5)
    service.write('GREETING_TIMES = 3\nGREETING_WORDS = "hi"')
    first.look()
    second.look()

    assert (first.section.times, second.section.times) == (3, 5)
    assert second.section.words == ("hi",)


def test_file_in_the_making(service: Service) -> None:
    """A file that changes between two looks is still being written: it is read when it is at rest."""
    process = service.process()
    service.write("GREETING_TIMES = 3")
    process.reloader.look()
    service.write("GREETING_TIMES = 34")
    process.reloader.look()
    assert process.section == Greeting()
    process.reloader.look()

    assert process.section == Greeting(times=34)


def test_swapped_secrets(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes swaps a link when a secret changes: that is a change, and values come through the link."""
    folder = service.folder / "secrets"
    for name, value in (("v1", "1"), ("v2", "2")):
        (folder / f"..{name}").mkdir(parents=True)
        (folder / f"..{name}" / "GREETING_TIMES").write_text(value)
    (folder / "..data").symlink_to("..v1")
    (folder / "GREETING_TIMES").symlink_to("..data/GREETING_TIMES")
    monkeypatch.setenv("SECRETS_DIR", str(folder))
    process = service.process()
    assert process.section.times == 1
    (folder / "..data_tmp").symlink_to("..v2")
    os.replace(folder / "..data_tmp", folder / "..data")
    process.look()

    assert process.section.times == 2


def test_asked(service: Service) -> None:
    """Who asks is told what changed, what waits, or why nothing did; without a service nobody answers."""
    board = Board(service.folder / "run")
    process = service.process()
    over = threading.Event()

    def serve() -> None:
        while not over.wait(0.02):
            process.reloader.look()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert (report := board.ask(5)) is not None
        assert not report.changed
        assert not report.refused
        service.write("GREETING_TIMES = 3")
        assert (report := board.ask(5)) is not None
        service.write("GREETING_TIMES = 0")
        assert (refused := board.ask(5)) is not None
    finally:
        over.set()
        thread.join()

    assert process.section.times == 3
    assert refused.refused
    assert Board(service.folder / "run").ask(0.1) is None
    assert Board(None).ask(0.1) is None


def test_never(make_app: Any) -> None:
    """With RELOAD_SECONDS=0, which tests have, nothing is looked at."""
    assert make_app(only=()).extensions["prod"].lifecycle.handle("settings") is None
