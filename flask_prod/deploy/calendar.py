"""From cron's form of a schedule to systemd's."""

from __future__ import annotations

import re
from collections.abc import Sequence

_DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
}
_FIELDS = 5
_PART = re.compile(r"(\*|[0-9]+|[A-Za-z]{3})(?:-([0-9]+|[A-Za-z]{3}))?(?:/([0-9]+))?")


def calendar_of(schedule: str) -> tuple[str, ...]:
    """Return the values of OnCalendar= that mean what *schedule*, five fields of cron in UTC, does.

    Two where day of the month and day of the week are both given: cron runs on either. ValueError for anything
    that is no such schedule.
    """
    fields = _NICKNAMES.get(schedule.strip(), schedule).split()
    if len(fields) != _FIELDS:
        raise ValueError(f"{schedule!r} is no schedule of five fields such as '15 2 * * *'.")
    minute, hour, day, month, weekday = fields
    time = f"{_numbers(hour, 0)}:{_numbers(minute, 0)}:00 UTC"
    of_month = f"*-{_numbers(month, 1)}-{_numbers(day, 1)} {time}"
    if weekday == "*":
        return (of_month,)
    of_week = (
        f"{_weekdays(weekday)} *-{_numbers(month, 1)}-{_numbers(day, 1) if day.startswith('*') else '*'} {time}"
    )
    return (of_week,) if day.startswith("*") else (of_month, of_week)


def _numbers(field: str, first: int) -> str:
    """Return a field of numbers; steps are counted from *first*, the smallest that it can have."""
    found = []
    for part in field.split(","):
        begin, end, step = _parts(part)
        if not all(one.isdigit() for one in (begin, end) if one not in ("*", "")):
            raise ValueError(f"{part!r} is no number in a schedule.")
        if begin == "*":
            found.append(f"{first:02}/{step}" if step else "*")
        else:
            words = f"{int(begin):02}" + (f"..{int(end):02}" if end else "")
            found.append(f"{words}/{step}" if step else words)
    return ",".join(found)


def _weekdays(field: str) -> str:
    found = []
    for part in field.split(","):
        begin, end, step = _parts(part)
        if step:
            raise ValueError(f"{part!r}: name the days of the week, a step of them means nothing to systemd.")
        found.append(_day(begin) + (f"..{_day(end)}" if end else ""))
    return ",".join(found)


def _day(word: str) -> str:
    if word.isdigit():
        if int(word) >= len(_DAYS):
            raise ValueError(f"{word} is no day of the week.")
        return _DAYS[int(word)]
    return word.title()


def _parts(part: str) -> Sequence[str]:
    match = _PART.fullmatch(part)
    if match is None:
        raise ValueError(f"{part!r} is no part of a schedule.")
    return [match[1], match[2] or "", match[3] or ""]
