"""Which backups stay."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from flask_prod.components.backups.retention import PERIODS, kept

NOW = datetime(2026, 11, 22, 6, 0, tzinfo=UTC)


def test_days_and_weeks() -> None:
    """Of a month of two a day there stay the last three, one of each of 7 days and of each of 4 weeks."""
    times = [NOW - timedelta(hours=12 * number) for number in range(60)]

    stay = kept(times, {"last": 3, "daily": 7, "weekly": 4})

    days = [NOW, *(NOW.replace(hour=18) - timedelta(days=number) for number in range(1, 7))]
    assert set(times[:3]) | set(days) <= stay
    assert len({when.isocalendar()[:2] for when in stay}) == 4
    assert len(stay) == 11


def test_empty_keeps_all() -> None:
    """Without BACKUP_KEEP nothing goes."""
    times = [NOW - timedelta(days=number) for number in range(50)]

    assert kept(times, {}) == set(times)


@given(st.lists(st.datetimes(), unique=True), st.dictionaries(st.sampled_from(PERIODS), st.integers(0, 9)))
def test_newest_stays(times: list[datetime], keep: dict[str, int]) -> None:
    """The newest backup stays whatever the setting says, and no more stay than were asked for."""
    stay = kept(times, keep)

    assert stay <= set(times)
    assert not times or max(times) in stay
    assert not keep or len(stay) <= max(1, sum(keep.values()) + 1)
