from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_prod import ProdKit
from flask_prod.components.jobs.schedule.schedules import Schedule, cron, every
from flask_prod.components.jobs.tasks.task import Task


def work() -> None:
    """Do something."""


def by_cron(text: str, zone: str = "UTC") -> Schedule:
    return cron(Task(work), text, zone, "skip", "")


def slots(schedule: Schedule, begin: str, count: int) -> list[str]:
    moment = int(datetime.fromisoformat(begin).timestamp())
    return [slot.strftime("%m-%dT%H:%MZ") for slot in schedule.slots(moment, count)]


def test_utc() -> None:
    """A cron expression means UTC unless it says otherwise."""
    assert slots(by_cron("0 3 * * *"), "2026-03-01T03:00+00:00", 2) == ["03-02T03:00Z", "03-03T03:00Z"]


def test_a_time_that_is_left_out() -> None:
    """When the clock jumps over a time, the job runs right after the jump, once."""
    found = slots(by_cron("30 2 * * *", "America/New_York"), "2026-03-07T12:00-05:00", 3)
    assert found == ["03-08T07:00Z", "03-09T06:30Z", "03-10T06:30Z"]


def test_a_time_that_comes_twice() -> None:
    """When an hour comes twice, a job of a given hour runs in the first one only."""
    found = slots(by_cron("30 1 * * *", "America/New_York"), "2026-10-31T12:00-04:00", 3)
    assert found == ["11-01T05:30Z", "11-02T06:30Z", "11-03T06:30Z"]


def test_an_hour_that_comes_twice() -> None:
    """A job of each hour goes on through the repeated hour, every half hour of real time."""
    schedule = by_cron("*/30 * * * *", "Europe/Berlin")
    found = schedule.slots(int(datetime(2026, 10, 24, 23, tzinfo=UTC).timestamp()), 12)
    assert {second - first for first, second in pairwise(found)} == {timedelta(minutes=30)}


@given(
    st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1)),
    st.sampled_from(["0 3 * * *", "30 2 * * *", "*/15 * * * *", "30 1 * * sun", "0 0 1 * *", "59 23 31 12 *"]),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
)
def test_forward_and_back(moment: datetime, text: str, zone: str) -> None:
    """The slot before the next one is that of now, and slots only go forward: no slot is lost or doubled."""
    schedule = by_cron(text, zone)
    now = int(moment.replace(tzinfo=UTC).timestamp())
    following = schedule.following(now)
    assert following > now
    assert schedule.preceding(following) == following
    assert schedule.preceding(now) <= now
    assert schedule.following(schedule.preceding(now)) == following


@given(st.integers(0, 2**33), st.integers(1, 10**6))
def test_intervals(moment: int, step: int) -> None:
    """Intervals are whole multiples since 1970, so that all workers mean the same moments."""
    schedule = every(Task(work), float(step), "skip", "")
    assert schedule.preceding(moment) <= moment < schedule.following(moment)
    assert schedule.following(moment) - schedule.preceding(moment) == step
    assert schedule.following(moment) % step == 0


@pytest.mark.parametrize(
    ("expression", "options", "words"),
    [
        ("* * *", {}, r"test_schedules\.work: '\* \* \*' must have five fields"),
        ("* * * * * *", {}, "must have five fields"),
        ("61 * * * *", {}, "'61.*' is no cron expression"),
        ("0 0 30 2 *", {}, "never comes"),
        (5, {}, "must have five fields"),
        ("0 3 * * *", {"timezone": "Mars/Base"}, "no time zone 'Mars/Base'"),
        ("0 3 * * *", {"missed": "later"}, "missed is skip or run_once"),
        ("0 3 * * *", {"name": "a:b"}, "name of a schedule"),
    ],
)
def test_wrong_cron(expression: Any, options: dict[str, Any], words: str) -> None:
    """A wrong schedule is refused where it is written, naming the function."""
    with pytest.raises(ValueError, match=words) as caught:
        ProdKit(only=("jobs",)).cron(expression, **options)(work)
    assert "work" in str(caught.value)


@pytest.mark.parametrize("span", ["0s", "250ms", -1, "often", 1.5])
def test_wrong_interval(span: Any) -> None:
    """An interval that is no whole second is refused where it is written."""
    with pytest.raises(ValueError, match=r"@prod\.every of .*work"):
        ProdKit(only=("jobs",)).every(span)(work)


def test_a_function_with_arguments() -> None:
    """A function that needs arguments cannot run by a schedule."""
    with pytest.raises(TypeError, match="gives no arguments: missing a required argument: 'order'"):
        ProdKit(only=("jobs",)).every("1m")(lambda order: None)


def test_on_a_job() -> None:
    """A job can have several schedules, each with a name of its own; its options are those of the job."""
    prod = ProdKit(only=("jobs",))
    job = prod.cron("0 4 * * *")(prod.every("1h")(prod.job(queue="nightly")(work)))
    assert [one.name for one in job.schedules] == [job.name, f"{job.name}-2"]
    assert job.options.queue == "nightly"
    with pytest.raises(TypeError, match=r"give queue to its @prod\.job"):
        prod.every("1h", queue="other")(job)


def test_options_of_a_plain_function() -> None:
    """A schedule takes the options of a job for a plain function."""
    job = ProdKit(only=("jobs",)).every("1h", queue="nightly", retry=2, timeout="5m")(work)
    assert (job.options.queue, job.options.retry, job.options.timeout) == ("nightly", 2, 300)
    assert job() is None
