"""When jobs run again and again: cron expressions in a time zone, and intervals.

A slot is a moment at which a schedule is due, in whole seconds since 1970, so that all workers mean the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ..settings import QUEUE_NAME
from ..tasks.options import Span, seconds_of

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from ..tasks.task import AnyTask

Missed: TypeAlias = Literal["skip", "run_once"]

_FIELDS = 5
"""Minute, hour, day of the month, month, day of the week."""

_LOOKS = 4
"""Moments that are looked at to find one that is a slot; of a repeated hour, one of two is."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """One schedule of one job; `following` and `preceding` give its slots around a moment."""

    name: str
    task: AnyTask
    text: str
    missed: Missed
    following: Callable[[int], int]
    """The first slot after a moment."""
    preceding: Callable[[int], int]
    """The last slot at a moment or before it."""

    def slots(self, moment: int, count: int) -> list[datetime]:
        """Return the next slots after a moment."""
        return [datetime.fromtimestamp(slot, UTC) for slot in islice(self._from(moment), count)]

    def _from(self, moment: int) -> Iterator[int]:
        while True:
            moment = self.following(moment)
            yield moment


def cron(task: AnyTask, expression: str, timezone: str, missed: Missed, name: str) -> Schedule:
    """Return a schedule by a cron expression; ValueError names the function and what is wrong."""
    zone = _zone(task, timezone)
    text = expression.strip() if isinstance(expression, str) else ""
    _check_expression(task, expression, text)
    iterate = _iterator(text, zone)
    try:
        iterate(0, 1)
    except ValueError as error:
        raise ValueError(f"@prod.cron of {task.name}: {expression!r} never comes: {error}") from None
    return _schedule(
        task,
        f"{text} {timezone}",
        missed,
        name,
        lambda moment: iterate(moment, 1),
        lambda moment: iterate(moment, -1),
    )


def every(task: AnyTask, span: Span, missed: Missed, name: str) -> Schedule:
    """Return a schedule by an interval of at least one whole second; ValueError names the function."""
    try:
        seconds = seconds_of("interval", span)
    except ValueError as error:
        raise ValueError(f"@prod.every of {task.name}: {error}") from None
    step = round(seconds)
    if step < 1 or step != seconds:
        raise ValueError(f"@prod.every of {task.name}: an interval is one whole second or more, not {span!r}")
    return _schedule(
        task,
        f"every {span if isinstance(span, str) else f'{step}s'}",
        missed,
        name,
        lambda moment: (moment // step + 1) * step,
        lambda moment: moment // step * step,
    )


def _schedule(
    task: AnyTask,
    text: str,
    missed: Missed,
    name: str,
    following: Callable[[int], int],
    preceding: Callable[[int], int],
) -> Schedule:
    if missed not in ("skip", "run_once"):
        raise ValueError(f"missed is skip or run_once, not {missed!r}: see the schedule of {task.name}")
    if name and not QUEUE_NAME.fullmatch(name):
        raise ValueError(f"the name of a schedule of {task.name} has letters, digits, and . _ -, not {name!r}")
    try:
        task.shape.signature.bind()
    except TypeError as error:
        raise TypeError(f"{task.name} runs by a schedule, which gives no arguments: {error}") from None
    chosen = name or task.name
    if any(one.name == chosen for one in task.schedules):
        chosen = f"{chosen}-{len(task.schedules) + 1}"
    return Schedule(chosen, task, text, missed, following, preceding)


def _zone(task: AnyTask, timezone: str) -> ZoneInfo:
    from zoneinfo import ZoneInfo  # reads how Python was built, a megabyte

    try:
        return ZoneInfo(timezone)
    except (KeyError, ValueError, TypeError, OSError):
        raise ValueError(
            f"@prod.cron of {task.name}: there is no time zone {timezone!r}; names are those such as UTC and "
            "Europe/Berlin (where the system has no list of them: pip install tzdata)"
        ) from None


def _check_expression(task: AnyTask, expression: object, text: str) -> None:
    from croniter import croniter

    shape_is_right = text.startswith("@") or len(text.split()) == _FIELDS
    if not shape_is_right:
        raise ValueError(
            f"@prod.cron of {task.name}: {expression!r} must have five fields: minute, hour, day of the month, "
            "month, day of the week"
        )
    try:
        croniter.expand(text)
    except ValueError as error:
        raise ValueError(f"@prod.cron of {task.name}: {expression!r} is no cron expression: {error}") from None


@lru_cache(maxsize=256)
def _iterator(text: str, zone: ZoneInfo) -> Callable[[int, int], int]:
    """Return what finds the slot after a moment (1), or the last one that is not after it (-1).

    A local time that a change of the clock leaves out is the first one after it. Of an hour that comes twice, an
    expression that names hours means the first; one with * for the hour runs through both.
    """
    from croniter import croniter

    each_hour = croniter.expand(text)[0][1] == ["*"]

    def find(moment: int, direction: int) -> int:
        begin = moment if direction > 0 else moment + 1
        walk: Any = croniter(text, datetime.fromtimestamp(begin, zone))
        for _ in range(_LOOKS):
            slot = (walk.get_next if direction > 0 else walk.get_prev)(datetime)
            if each_hour or not _comes_again(slot, zone):
                return int(slot.timestamp())
        raise ValueError("no slot was found")

    return find


def _comes_again(slot: datetime, zone: ZoneInfo) -> bool:
    """Tell whether this is the second time that the clock shows the same."""
    local = datetime.fromtimestamp(slot.timestamp(), zone)
    return local.fold == 1
