from __future__ import annotations

import pytest

from flask_prod.core.component import Event
from flask_prod.core.gate import Gate
from flask_prod.core.values import Secret


def gate(token: str, events: list[Event] | None = None) -> Gate:
    told: list[Event] = [] if events is None else events
    return Gate("OPS_TOKEN", Secret(token), told.append)


@pytest.mark.parametrize("header", ["Bearer new", "bearer new", "Bearer  old ", "Bearer old"])
def test_right_token(header: str) -> None:
    """Two tokens are good at once, whatever the scheme's case."""
    assert gate("new, old").admits(header)


@pytest.mark.parametrize("token", ["new,old", "new", "old"])
@pytest.mark.parametrize("header", ["Bearer new,old", "Bearer new, old"])
def test_setting_sent_whole(token: str, header: str) -> None:
    """Who sends both tokens is let in before, during and after the one replaces the other."""
    assert gate(token).admits(header)


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Bearer ,", "Basic new", "new", "Bearer ne", "Bearer ü", "Bearer a,b,new"],
)
def test_wrong_token(header: str) -> None:
    """All else is refused."""
    assert not gate("new,old").admits(header)


@pytest.mark.parametrize("token", ["", " , ,"])
def test_no_token(token: str) -> None:
    """Without a token nobody is let in, also not who sends none."""
    assert not gate(token).admits("Bearer ")
    assert not gate(token).admits("Bearer ,")


def test_refusal_is_told() -> None:
    """A wrong token is an event that names the setting, and shows neither token."""
    events: list[Event] = []
    gate("right", events).admits("Bearer wrong")
    assert [event.name for event in events] == ["security.token_refused"]
    assert "OPS_TOKEN" in events[0].message
    assert "wrong" not in events[0].message.replace("A wrong OPS_TOKEN", "")
    assert "right" not in events[0].message
