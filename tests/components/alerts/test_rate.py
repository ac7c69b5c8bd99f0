"""Failures per minute, and the episodes they make."""

from __future__ import annotations

import pytest

from flask_prod.components.alerts.rate import Episode, Limits, Rate, judge

LIMITS = Limits(rate=10, calm=180, reminder=3600)


def test_rate() -> None:
    """The rate is what the number grew by within the last 60 seconds, whatever it was before."""
    rate = Rate()

    assert [rate.feed(now, total) for now, total in ((0, 100), (2, 103), (30, 110), (62, 110), (90, 110))] == [
        0, 3, 10, 7, 0,
    ]  # fmt: skip


def test_counter_that_begins_anew() -> None:
    """A number that fell, as after a restart, is no negative rate."""
    rate = Rate()
    rate.feed(0, 100)

    assert rate.feed(2, 3) == 0
    assert rate.feed(4, 5) == 2


def test_nobody_looked() -> None:
    """What happened while nobody looked for more than a minute is not the last minute's."""
    rate = Rate()
    rate.feed(0, 100)

    assert rate.feed(4000, 900) == 0
    assert rate.feed(4002, 905) == 5


def test_memory_is_bounded() -> None:
    """A day of looks every two seconds keeps a minute of them."""
    rate = Rate()
    for second in range(0, 86400, 2):
        rate.feed(second, second)

    assert len(rate._seen) <= 32


def test_episode() -> None:
    """An episode is told once, reminded of by the hour, and ends after three calm minutes."""
    episode = Episode()
    story = [
        (0, 9, ""), (2, 10, "begun"), (4, 50, ""), (100, 4, ""), (200, 9, ""), (250, 4, ""), (300, 6, ""),
        (3602, 20, "lasting"), (3604, 20, ""), (3700, 4, ""), (3879, 0, ""), (3880, 0, "ended"), (3882, 0, ""),
        (3900, 10, "begun"),
    ]  # fmt: skip

    assert [judge(episode, rate, 1000 + now, LIMITS) for now, rate, _ in story] == [news for *_, news in story]


@pytest.mark.parametrize("rate", [5, 9, 10, 11])
def test_hysteresis(rate: float) -> None:
    """Around the limit nothing flaps: half of it is what ends an episode."""
    episode = Episode()
    judge(episode, 10, 1000, LIMITS)

    assert [judge(episode, value, 1000 + now, LIMITS) for now, value in ((200, rate), (400, rate))] == ["", ""]


def test_never_reminded() -> None:
    """ALERTS_REMINDER=0 tells once, however long it lasts."""
    episode, limits = Episode(), Limits(rate=10, calm=180, reminder=0)
    judge(episode, 10, 1000, limits)

    assert judge(episode, 10, 1_000_000, limits) == ""
