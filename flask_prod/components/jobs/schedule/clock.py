"""What makes scheduled jobs run: one of all workers leads, and dispatches each slot once.

Who leads is a lock that ends by itself, and it only saves work: that a slot runs once is decided where jobs are
kept, which stores a slot's job and the slot in one step, and takes no slot that is not later than the last.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flask_prod.core.errors import Unavailable

from ..dispatch.accept import Slot

if TYPE_CHECKING:
    from flask_prod.core.later import Later

    from ..engine import Engine
    from .schedules import Schedule

logger = logging.getLogger(__name__)

LEASE = 15.0
"""Seconds after which another worker leads when the one that led is gone."""

_RENEWAL = 5.0
"""Seconds between looks at who leads."""

GRACE = 60.0
"""Seconds that a slot may be late, by a change of the leader for instance, and is not yet missed."""


@dataclass(frozen=True, slots=True)
class ScheduleState:
    """What `flask prod jobs schedule` shows of one schedule; moments are ISO 8601 in UTC."""

    name: str
    job: str
    schedule: str
    queue: str
    missed: str
    next: list[str]
    last: str
    state: str


class Clock:
    """Dispatches due slots while this process leads; `tick` is called about once a second by each supervisor."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._keeper = engine.desk.keeper
        self._leads = False
        self._look_at = 0.0
        self._due: dict[str, int] = {}

    def tick(self) -> None:
        """Do what is due; never raises, and costs nothing where there are no schedules."""
        schedules = self._engine.tasks.schedules()
        if not schedules:
            return
        try:
            if self._leading(schedules):
                self._run(schedules, int(time.time()))
        except Unavailable as error:
            self._leads, self._look_at = False, time.monotonic() + 1
            logger.warning("Schedules wait: %s", error)
        except Exception:
            self._leads, self._look_at = False, time.monotonic() + _RENEWAL
            logger.exception("Looking after schedules failed")

    def close(self) -> None:
        """Leave the lead to another worker at once."""
        if self._leads:
            self._leads = False
            try:
                self._keeper.resign()
            except Unavailable:
                return

    def _leading(self, schedules: list[Schedule]) -> bool:
        moment = time.monotonic()
        if moment < self._look_at:
            return self._leads
        self._look_at = moment + _RENEWAL
        led, self._leads = self._leads, self._keeper.leads(LEASE)
        if self._leads and not led:
            self._begin(schedules)
        return self._leads

    def _begin(self, schedules: list[Schedule]) -> None:
        """Find out where each schedule stands; one that is seen for the first time begins now."""
        known = self._keeper.slots()
        moment = int(time.time())
        for schedule in schedules:
            if schedule.name not in known:
                self._keeper.pass_slot(Slot(schedule.name, moment))
            self._due[schedule.name] = schedule.following(known.get(schedule.name, moment))

    def _run(self, schedules: list[Schedule], moment: int) -> None:
        for schedule in schedules:
            due = self._due.get(schedule.name)
            if due is None or due > moment:
                continue
            slot = max(due, schedule.preceding(moment))
            self._one(schedule, slot, moment - slot)
            self._due[schedule.name] = schedule.following(slot)

    def _one(self, schedule: Schedule, slot: int, late: int) -> None:
        """Dispatch one slot, or pass it when it was missed; a job that cannot be dispatched stops no other."""
        name = datetime.fromtimestamp(slot, UTC).isoformat()
        if late > GRACE and schedule.missed == "skip":
            self._keeper.pass_slot(Slot(schedule.name, slot))
            logger.warning("The schedule %s has missed %s; it waits for its next time", schedule.name, name)
            return
        try:
            with self._engine.app.app_context():
                options = schedule.task.options
                self._engine.desk.dispatch(schedule.task, options, ((), {}), Slot(schedule.name, slot))
        except Unavailable:
            raise
        except Exception:
            logger.exception("The schedule %s could not dispatch its job for %s", schedule.name, name)


def schedule_states(engine: Engine | Later, count: int = 3) -> list[ScheduleState]:
    """Return what is known of each schedule; Unavailable without Redis."""
    known = engine.desk.keeper.slots()
    moment = int(time.time())
    return [
        _state(engine, schedule, known.get(schedule.name), moment, count) for schedule in engine.tasks.schedules()
    ]


def _state(engine: Engine | Later, schedule: Schedule, last: int | None, moment: int, count: int) -> ScheduleState:
    return ScheduleState(
        name=schedule.name,
        job=schedule.task.name,
        schedule=schedule.text,
        queue=schedule.task.options.queue,
        missed=schedule.missed,
        next=[slot.isoformat() for slot in schedule.slots(moment, count)],
        last="" if last is None else datetime.fromtimestamp(last, UTC).isoformat(),
        state=_how_it_stands(engine, schedule, last, moment),
    )


def _how_it_stands(engine: Engine | Later, schedule: Schedule, last: int | None, moment: int) -> str:
    """Say in a word or two what became of the last slot."""
    if last is None:
        return "never seen by a worker"
    if moment - schedule.following(last) > GRACE:
        return "late: is a worker running?"
    job: Any = engine.find(engine.desk.slot_id(Slot(schedule.name, last)))
    return "waiting" if job is None else str(job.get_status(refresh=False).value)
