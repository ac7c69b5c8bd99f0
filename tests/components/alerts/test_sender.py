"""Threads that send: bounded, ended in time, logged once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from flask_prod.components.alerts import sender as module
from flask_prod.components.alerts.sender import Channel, Message, Sender
from flask_prod.core.values import Secret
from tests.servers import HttpSink, wait_for

# One of apprise's plugins imports a module that Python 3.13 no longer has.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

ADDRESS = Secret("json://user:hunter2hunter2@127.0.0.1:1/x")


class Counted:
    """A counter that remembers."""

    def __init__(self) -> None:
        self.results: list[str] = []

    def inc(self, *labels: str) -> None:
        self.results += labels

    def counting(self, *labels: str) -> Callable[[], None]:
        return partial(self.inc, *labels)

    def show(self, *labels: str) -> None:
        """Show nothing: a test looks at what was counted."""


def test_apprise(http_sink: HttpSink) -> None:
    """A message arrives by apprise with its title, its text and its kind."""
    counted = Counted()
    sender = Sender([Channel(Secret(f"json://127.0.0.1:{http_sink.port}/hook"), counted)])

    sender.send(Message("Too many", "of them"))
    (received,) = http_sink.wait_for(1)
    sender.close()

    assert (received.json["title"], received.json["message"], received.json["type"]) == (
        "Too many", "of them", "failure",
    )  # fmt: skip
    assert counted.results == ["sent"]


@pytest.mark.alone
def test_hanging_channel(http_sink: HttpSink) -> None:
    """A channel that hangs delays neither the sender, nor another channel, nor the end."""
    released, counted = threading.Event(), Counted()
    arrived: list[Message] = []

    def keep(message: Message) -> bool:
        arrived.append(message)
        return True

    hanging = Channel(ADDRESS, counted, lambda message: released.wait(30))
    working = Channel(ADDRESS, counted, keep)
    sender = Sender([hanging, working])

    began = time.monotonic()
    for number in range(50):
        sender.send(Message(str(number), ""))
    took = time.monotonic() - began
    wait_for(lambda: arrived, 2)
    began = time.monotonic()
    sender.close(0.5)

    assert took < 0.1
    assert time.monotonic() - began < 0.8
    assert counted.results.count("dropped") >= 29
    released.set()


def test_tried_again(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A message that was not taken is tried again; the outage is logged once, without the address."""
    monkeypatch.setattr(module, "_PAUSES", (0.01, 0.01, 0.01))
    answers: Iterator[bool | OSError] = iter([False, OSError("no"), True, True])
    counted = Counted()

    def notify(message: Message) -> bool:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    channel = Channel(ADDRESS, counted, notify)
    channel.put(Message("a", ""))
    channel.put(Message("b", ""))
    wait_for(lambda: len(counted.results) == 2, 3)
    channel.end()
    channel.join(time.monotonic() + 1)

    assert counted.results == ["sent", "sent"]
    assert caplog.messages == [
        f"Alerts by json ({ADDRESS.fingerprint}) do not arrive: the channel did not take it.",
        f"Alerts by json ({ADDRESS.fingerprint}) arrive again.",
    ]


def test_unknown_address(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that apprise does not know is said so, and not shown; its own lines are kept out."""
    monkeypatch.setattr(module, "_PAUSES", ())
    unspoken, counted = module.hush(), Counted()
    channel = Channel(Secret("nowhere://hunter2hunter2"), counted)
    channel.put(Message("a", ""))
    wait_for(lambda: counted.results, 5)
    channel.end()
    unspoken()

    assert "apprise does not know such an address" in caplog.text
    assert "hunter2" not in caplog.text
    assert counted.results == ["failed"]


@pytest.mark.alone
def test_given_up_at_the_end() -> None:
    """The end of the process does not wait for another attempt."""
    counted = Counted()
    sender = Sender([Channel(ADDRESS, counted, lambda message: False)])
    sender.send(Message("a", ""))

    began = time.monotonic()
    sender.close(1.0)

    assert time.monotonic() - began < 0.5
    assert counted.results == ["failed"]
    sender.send(Message("late", ""))
