"""Taking over changed settings while the service runs: all or nothing, and the same in every worker of a host.

One process leads: it sees that a file has changed, reads every source, validates every section, lets each room
prepare, and only then changes anything. It writes the values that are now in force to RUN_DIR, and the other
workers take them from there: also when the file was changed again, or broken, in between.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from .component import Contribution, Event, Periodic
from .convert import convert
from .errors import ConfigError
from .reload_board import Board, Report
from .run_dir import Leader
from .settings import Section, Settings, key_names, read_settings
from .sources import Finder

logger = logging.getLogger(__name__)

Commit = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Change:
    """One setting that is not what it was; secrets are fingerprints."""

    key: str
    old: str
    new: str
    live: bool

    def __str__(self) -> str:
        return f"{self.key} {self.old or 'none'} -> {self.new or 'none'}"


class Reloader:
    """Watches the sources of one application in one process; requests never wait for it.

    `then` is called when something has changed.
    """

    def __init__(
        self,
        finder: Finder,
        rooms: Mapping[str, type[Section]],
        settings: Settings,
        contributions: Mapping[str, Contribution[Any]],
        folder: Path | None,
    ) -> None:
        self._finder = finder
        self._rooms = {name: kind for name, kind in rooms.items() if name in contributions}
        self._contributions = contributions
        self._seen = settings  # as read last: what waits for a start is told once
        self._in_force = {kind: settings.section(kind) for kind in self._rooms.values()}
        self.then: Callable[[], None] = lambda: None
        self._board = Board(folder)
        self._leader = Leader(folder, "settings")
        self._stamp = self._last = finder.stamp
        self._asked = self._board.asked()
        self._generation = self._board.generation()

    @property
    def sections(self) -> Mapping[type[Section], Section]:
        """What is in force now, by class."""
        return self._in_force

    def periodic(self, seconds: float) -> tuple[Periodic, ...]:
        """Return the work of each serving process; none with 0 seconds."""
        return (Periodic("settings", seconds, self.look),) if seconds else ()

    def look(self) -> None:
        """Take over what has changed, as the process that leads or as one that follows."""
        self._follow()
        if self._leader.leads():
            self._finder.tend()
            self._lead()

    def resign(self) -> None:
        """Leave the lead to another process."""
        self._leader.resign()

    def _lead(self) -> None:
        asked, stamp = self._board.asked(), self._finder.look()
        settled = stamp == self._last  # a file that is still being written is left alone
        self._last = stamp
        if asked == self._asked and (stamp == self._stamp or not settled):
            return
        self._asked, self._stamp = asked, stamp
        try:
            report = self._take_over()
        except ConfigError as error:
            report = Report(refused=error.problems)
            why = " ".join(error.problems)
            self._emit(
                "prod.settings.refused", f"Changed settings are refused, nothing was changed: {why}", "error"
            )
        report.stamp, report.asked, report.values = stamp, asked, dict(self._values())
        self._generation = self._board.publish(report)

    def _take_over(self) -> Report:
        new = read_settings(self._seen.kinds, self._finder.find())
        targets = {name: self._target(name, new.section(kind)) for name, kind in self._rooms.items()}
        changes = [*self._live_changes(targets, new), *self._waiting_changes(new)]
        self._commit(targets)
        self._seen = new
        changed, waiting = [c for c in changes if c.live], [c for c in changes if not c.live]
        if changed:
            fields = {c.key: {"old": c.old, "new": c.new} for c in changed}
            self._emit("prod.settings.reloaded", f"Settings changed: {_list(changed)}.", "info", changed=fields)
        if waiting:
            self._emit(
                "prod.settings.waiting",
                f"Changed settings take effect at the next start: {_list(waiting)}.",
                "warning",
                keys=[c.key for c in waiting],
            )
        return Report(changed=[str(c) for c in changed], waiting=[str(c) for c in waiting])

    def _target(self, name: str, new: Section) -> Section:
        """Return what a room is to have: its section in force with the fields that may change from *new*."""
        now = self._in_force[self._rooms[name]]
        if self._contributions[name].reload is None:
            return now
        target: Section = msgspec.structs.replace(now, **{field: getattr(new, field) for field in now.live})
        return target

    def _commit(self, targets: Mapping[str, Section]) -> None:
        """Let every room prepare what it is to have; only when all could is anything changed."""
        commits: list[tuple[str, Commit]] = []
        problems: list[str] = []
        for name, target in targets.items():
            reload = self._contributions[name].reload
            if reload is None or target == self._in_force[self._rooms[name]]:
                continue
            found = list(target.problems())
            try:
                if not found:
                    commits.append((name, reload(target)))
            except ConfigError as error:
                found = list(error.problems)
            problems += found
        if problems:
            raise ConfigError(problems)
        for name, commit in commits:
            commit()
            self._in_force[self._rooms[name]] = targets[name]
        self.then()

    def _live_changes(self, targets: Mapping[str, Section], new: Settings) -> Iterator[Change]:
        for name, target in targets.items():
            yield from _differences(self._in_force[self._rooms[name]], target, new, live=True)

    def _waiting_changes(self, new: Settings) -> Iterator[Change]:
        able = {kind for name, kind in self._rooms.items() if self._contributions[name].reload is not None}
        for kind in new.kinds:
            for change in _differences(self._seen.section(kind), new.section(kind), new, live=False):
                live = {name for field in kind.live for name in key_names(kind, field)} if kind in able else ()
                if change.key not in live:
                    yield change

    def _values(self) -> Iterator[tuple[str, Any]]:
        """Yield every setting that can change, by its first name, as other workers are to have it."""
        for name, kind in self._rooms.items():
            if self._contributions[name].reload is not None:
                for field in kind.live:
                    value = getattr(self._in_force[kind], field)
                    yield key_names(kind, field)[0], msgspec.to_builtins(value)

    def _follow(self) -> None:
        """Take over what the leading process has put in force since this one began."""
        report = self._board.news(self._generation)
        if report is None:
            return
        self._generation = report.generation
        self._stamp, self._asked = report.stamp, report.asked
        targets = {name: self._published(name, report.values) for name in self._rooms}
        self._commit(targets)

    def _published(self, name: str, values: Mapping[str, Any]) -> Section:
        """Return a room's section with the values put in force, except where this process was told otherwise."""
        kind = self._rooms[name]
        now = self._in_force[kind]
        if self._contributions[name].reload is None:
            return now
        found = {}
        for field in msgspec.structs.fields(kind):
            names = key_names(kind, field.name)
            if field.name in kind.live and names[0] in values and not self._finder.is_fixed(names):
                found[field.name] = convert(values[names[0]], field.type)
        target: Section = msgspec.structs.replace(now, **found)
        return target

    def _emit(self, event: str, message: str, severity: str, **fields: object) -> None:
        told = Event(event, message, severity, fields)
        for name, contribution in self._contributions.items():
            if contribution.on_event is not None:
                try:
                    contribution.on_event(told)
                except Exception:
                    logger.exception("%s could not take event %s", name, event)


def _differences(old: Section, new: Section, settings: Settings, *, live: bool) -> Iterator[Change]:
    from .settings_doc import written  # a page's worth of imports, for the day when something changes

    for field in msgspec.structs.fields(type(new)):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if before != after:
            shown = [settings.hidden(written(value, field.type)) for value in (before, after)]
            yield Change(key_names(type(new), field.name)[0], shown[0], shown[1], live)


def _list(changes: Sequence[Change]) -> str:
    return ", ".join(map(str, changes))
