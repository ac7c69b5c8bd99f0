"""From cron's form of a schedule to systemd's; test_systemd.py has systemd itself read them."""

from __future__ import annotations

import pytest

from flask_prod.deploy.calendar import calendar_of


@pytest.mark.parametrize(
    ("schedule", "calendar"),
    [
        ("15 2 * * *", ("*-*-* 02:15:00 UTC",)),
        ("*/20 1-5 * * 1-5", ("Mon..Fri *-*-* 01..05:00/20:00 UTC",)),
        ("0 0,12 1 */2 *", ("*-01/2-01 00,12:00:00 UTC",)),
        ("30 4 1,15 * 5", ("*-*-01,15 04:30:00 UTC", "Fri *-*-* 04:30:00 UTC")),
        ("5 4 * * sun", ("Sun *-*-* 04:05:00 UTC",)),
        ("0 0 * * 7", ("Sun *-*-* 00:00:00 UTC",)),
        ("0 6 */2 * 1", ("Mon *-*-01/2 06:00:00 UTC",)),
        ("@daily", ("*-*-* 00:00:00 UTC",)),
    ],
)
def test_schedules(schedule: str, calendar: tuple[str, ...]) -> None:
    """Lists, ranges, steps, names and nicknames mean the same; both kinds of day mean either, as in cron."""
    assert calendar_of(schedule) == calendar


@pytest.mark.parametrize("schedule", ["", "15 2 * *", "a 2 * * *", "15 2 * * 8", "15 2 * * */2", "1..5 2 * * *"])
def test_nonsense(schedule: str) -> None:
    """What is no schedule, or nothing that systemd can say, is refused."""
    with pytest.raises(ValueError, match=r"schedule|days? of the week"):
        calendar_of(schedule)
