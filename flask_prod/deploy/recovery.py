"""The way back from a destroyed database, in order and by the clock; and its rehearsal, which destroys nothing.

What comes back is what the last backup holds: every row, and in the outbox the jobs that had not gone out yet.
What was committed later is lost, and can only be told of: Redis still knows jobs that were dispatched since.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flask_prod.core.errors import NotInstalled
from flask_prod.core.kit import KitState

from .checked import FAIL, Doubtful, Failed, Result, Skipped, run
from .migrated import migrations_of

RTO = 180.0
"""Seconds that a recovery may take, from its start to a database that serves."""

SKIPPED = 10_000
"""Numbers that are left out: more than anybody can have been given since the backup."""

_AT_ONCE = 500
_STATES = ("waiting", "scheduled", "deferred", "running", "dead", "finished", "canceled")
_MANY = 100_000

_SEQUENCES = "SELECT schemaname, sequencename, last_value, start_value, max_value FROM pg_sequences"
_ADVANCE = "SELECT setval(CAST(format('%I.%I', CAST(:schema AS text), CAST(:name AS text)) AS regclass), :value)"


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    name: str = "latest"
    overwrite: bool = False
    skip: int = SKIPPED
    lost_at: datetime | None = None
    """When the database was lost; when the command began if nobody says."""

    report: Path | None = None
    """Where to write which jobs Redis knows that came after the backup, with their arguments."""

    rto: float = RTO
    rpo: float = 0.0
    """Seconds that may be lost; 0 for any."""


@dataclass
class Recovery:
    """One recovery into the service's own, empty database."""

    state: KitState
    options: Options
    began: float = field(default_factory=time.monotonic)
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    made_at: datetime | None = None

    def results(self) -> Iterator[Result]:
        """Yield each step; the first that fails is the last."""
        steps = (
            ("backup", self.backup),
            ("restore", self.restore),
            ("numbers", self.numbers),
            ("migrations", self.migrations),
            ("outbox", self.outbox),
            ("lost", self.lost),
            ("time", self.time),
        )
        for step in steps:
            (result,) = run([step])
            yield result
            if result.status == FAIL:
                return

    @property
    def rto(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.began

    @property
    def rpo(self) -> float:
        """Seconds between the backup and the loss."""
        if self.made_at is None:
            return 0.0
        return max(0.0, ((self.options.lost_at or self.started) - self.made_at).total_seconds())

    def backup(self) -> str:
        """There is one to restore."""
        backups = room_of(self.state, "backups")
        found = [one for one in backups.all() if self.options.name in ("latest", one.name)]
        if not found:
            raise Failed(f"there is no backup {self.options.name} in {backups.settings.url}")
        self.made_at = found[0].made_at
        return f"{found[0].name}, {found[0].rows:,} rows, {span(self.rpo)} older than the loss"

    def restore(self) -> str:
        """Every row comes back, and is compared with what was backed up."""
        report = room_of(self.state, "backups").restore(
            self.options.name, "self", overwrite=self.options.overwrite
        )
        return f"{report.manifest.rows:,} rows in {len(report.manifest.tables)} tables, restored and compared"

    def numbers(self) -> str:
        """No number is given again that somebody may have been told since the backup."""
        engine = engine_of(self.state)
        if engine.dialect.name != "postgresql":
            raise Skipped(
                f"{engine.dialect.name} has no sequences: numbers given since the backup are given again"
            )
        if not self.options.skip:
            raise Skipped("--skip-ids 0: numbers given since the backup are given again")
        from sqlalchemy import text

        with engine.begin() as connection:
            rows = connection.execute(text(_SEQUENCES)).all()
            for schema, name, last, start, most in rows:
                value = min((last or start) + self.options.skip, most)
                connection.execute(text(_ADVANCE), {"schema": schema, "name": name, "value": value})
        return f"{len(rows)} sequences go on {self.options.skip:,} later"

    def migrations(self) -> str:
        """The database is what this release needs."""
        done = migrations_of(self.state).upgrade()
        return f"applied {', '.join(done)}" if done else "none was pending"

    def outbox(self) -> str:
        """Jobs that were waiting in the database at the backup wait again, and go out when the service starts."""
        engine = jobs_of(self.state)
        if engine is None or not engine.backend.outboxed:
            raise Skipped("there is no outbox")
        from flask_prod.components.jobs.outbox.relay import waiting

        count, _ = waiting(engine.backend.outbox())
        return f"{count} jobs wait, and go out when the service starts; Redis refuses those that it knows"

    def lost(self) -> str:
        """What Redis knows of the time after the backup is told: what it is about has to be asked for again."""
        engine = jobs_of(self.state)
        if engine is None or engine.backend.kind != "redis" or self.made_at is None:
            raise Skipped("no jobs lie outside of the database")
        found = list(_dispatched_since(engine, self.made_at))
        if self.options.report is not None:
            _write(self.options.report, found)
        if found:
            where = f": see {self.options.report}" if self.options.report else "; --report FILE tells which"
            raise Doubtful(f"{len(found)} jobs were dispatched after the backup began{where}")
        return "Redis knows of no job that was dispatched after the backup"

    def time(self) -> str:
        """It went fast enough, and not too much is lost."""
        return measured(self.rto, self.rpo, self.options)


@dataclass
class Drill:
    """A rehearsal: the last backup comes back into a scratch database, which goes away again."""

    state: KitState
    options: Options
    scratch: str = ""
    fresh: bool = False
    began: float = field(default_factory=time.monotonic)
    rpo: float = 0.0

    def results(self) -> Iterator[Result]:
        """Yield each step; the first that fails is the last."""
        steps: list[tuple[str, Callable[[], str]]] = [("restore", self.restore), ("time", self.time)]
        for step in [("backup", self.backup), *steps] if self.fresh else steps:
            (result,) = run([step])
            yield result
            if result.status == FAIL:
                return

    @property
    def rto(self) -> float:
        """Seconds since the restoring began."""
        return time.monotonic() - self.began

    def backup(self) -> str:
        """One is made first, as every night."""
        made = room_of(self.state, "backups").run()
        self.began = time.monotonic()
        return f"{made.name}, {made.rows:,} rows in {made.seconds:.1f} s"

    def restore(self) -> str:
        """Every row comes back, and is compared with what was backed up."""
        report = room_of(self.state, "backups").verify(self.options.name, self.scratch)
        self.rpo = (
            datetime.now(UTC) - report.manifest.made_at - timedelta(seconds=report.seconds)
        ).total_seconds()
        return f"{report.manifest.name}, {report.manifest.rows:,} rows in {len(report.manifest.tables)} tables"

    def time(self) -> str:
        """It went fast enough, and not too much would be lost."""
        return measured(self.rto, max(0.0, self.rpo), self.options)


def measured(rto: float, rpo: float, options: Options) -> str:
    """Say how long it took and how much is lost; Failed when that is beyond the limits."""
    allowed = f" of {span(options.rpo)}" if options.rpo else ""
    words = f"RTO {span(rto)} of {span(options.rto)}, RPO {span(rpo)}{allowed}"
    if rto > options.rto or 0 < options.rpo < rpo:
        raise Failed(f"{words}: beyond the limit")
    return words


def span(seconds: float) -> str:
    """Return a duration as people read it: 12.3 s, 5 min 3 s, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def room_of(state: KitState, name: str) -> Any:
    """Return a room's handle; NotInstalled where the application leaves it out."""
    room = state.contributions.get(name)
    if room is None:
        raise NotInstalled(f"This application leaves the {name} room out: see only= and without= of ProdKit.")
    return room.handle


def jobs_of(state: KitState) -> Any:
    """Return the engine of jobs; None without any."""
    room = state.contributions.get("jobs")
    return None if room is None or not room.handle.tasks.by_name else room.handle


def engine_of(state: KitState) -> Any:
    """Return the engine of the service's database."""
    theirs = state.app.extensions.get("sqlalchemy")
    return (theirs or room_of(state, "database")).engine


def _dispatched_since(engine: Any, moment: datetime) -> Iterator[dict[str, str]]:
    for queue in engine.office.named(()):
        for state in _STATES:
            ids = engine.office.ids(state, queue, _MANY)
            for start in range(0, len(ids), _AT_ONCE):
                for job in engine.fetch_many(ids[start : start + _AT_ONCE]):
                    if job.created_at.replace(tzinfo=UTC) > moment:
                        shown = engine.office.show(job.id, arguments=True)
                        kept = ("id", "job", "queue", "status", "created", "ended", "arguments")
                        yield {name: getattr(shown, name) for name in kept}


def _write(path: Path, found: list[dict[str, str]]) -> None:
    """Write a file that only its owner can read: arguments may be personal."""
    with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(found, file, indent=2)
        file.write("\n")
