"""Where the hours are kept: in Redis, shared by all instances of the service, or in a file of this host."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from flask_prod.core.errors import Unavailable
from flask_prod.core.ports import RedisPort

from .engine import HOUR, OTHER, Batch, Cell, Name, clean

if TYPE_CHECKING:
    import sqlite3

_MARK_SECONDS = 3600
"""How long Redis remembers which batches it has: longer than one waits to be tried again."""

_ADD = """
if not redis.call('set', KEYS[2], '1', 'NX', 'EX', ARGV[2]) then return 0 end
local full = redis.call('hlen', KEYS[1]) >= tonumber(ARGV[3]) * 5
for i = 4, #ARGV, 7 do
  local name = ARGV[i]
  if full and redis.call('hexists', KEYS[1], name .. '0') == 0 then name = ARGV[i + 1] end
  for n = 0, 3 do redis.call('hincrby', KEYS[1], name .. n, ARGV[i + 2 + n]) end
  redis.call('hincrbyfloat', KEYS[1], name .. '4', ARGV[i + 6])
end
redis.call('expire', KEYS[1], ARGV[1])
return 1
"""
"""Adds a batch to its hour, unless it is there already: an answer that got lost is no reason to count twice."""

_TABLE = """
create table if not exists usage (
  hour integer, kind text, route text, caller text,
  requests integer, errors integer, refusals integer, bytes integer, seconds real,
  primary key (hour, kind, route, caller)
) without rowid
"""
_UPSERT = """
insert into usage values (?, ?, ?, ?, ?, ?, ?, ?, ?) on conflict do update set
  requests = requests + excluded.requests, errors = errors + excluded.errors,
  refusals = refusals + excluded.refusals, bytes = bytes + excluded.bytes, seconds = seconds + excluded.seconds
"""
_READ = "select kind, route, caller, requests, errors, refusals, bytes, seconds from usage where hour = ?"


class UsageStore(Protocol):
    """Keeps hours."""

    @property
    def where(self) -> str:
        """Where they are, for people."""

    def add(self, batch: Batch) -> None:
        """Add a batch to its hour, once; Unavailable when that cannot be done now."""

    def read(self, first: int, last: int) -> Iterator[tuple[int, dict[Name, Cell]]]:
        """Yield the hours from *first* to *last* that have something; Unavailable when they cannot be read."""


class RedisStore:
    """Hours in Redis: one hash for each, of five numbers for each route and caller."""

    def __init__(self, redis: RedisPort, keep: float, limit: int) -> None:
        self._redis = redis
        self._keep = int(keep)
        self._limit = limit

    @property
    def where(self) -> str:
        """Where hours are, for people; the address may hold a password."""
        return "the Redis of REDIS_URL"

    def add(self, batch: Batch) -> None:
        """Add a batch in one trip."""
        keys = (self._hour(batch.hour), self._redis.key("usage", "batch", batch.id))
        words: list[Any] = [self._keep + HOUR, _MARK_SECONDS, self._limit]
        for name, cell in batch.cells.items():
            words += (_field(name), _field((name[0], name[1], OTHER)), *map(int, cell[:4]), repr(cell[4]))
        self._redis.attempt(lambda client: client.eval(_ADD, 2, *keys, *words))

    def read(self, first: int, last: int) -> Iterator[tuple[int, dict[Name, Cell]]]:
        """Read a day of hours in one trip."""
        client = self._redis.client("jobs")
        for begin in range(first, last + 1, 24):
            hours = range(begin, min(begin + 24, last + 1))
            for hour, fields in zip(hours, self._read(client, hours), strict=True):
                if fields:
                    yield hour, _cells(fields)

    def _read(self, client: Any, hours: range) -> list[dict[bytes, bytes]]:
        import redis

        try:
            with client.pipeline(transaction=False) as pipeline:
                for hour in hours:
                    pipeline.hgetall(self._hour(hour))
                answers: list[dict[bytes, bytes]] = pipeline.execute()
        except (redis.RedisError, OSError) as error:
            raise Unavailable(str(error)) from error
        return answers

    def _hour(self, hour: int) -> str:
        return self._redis.key("usage", str(hour))


class FileStore:
    """Hours in an SQLite file shared by the processes of one host; opened for each use, so no fork inherits it."""

    def __init__(self, place: Callable[[], Path | None], keep: float, limit: int) -> None:
        self._place = place
        self._keep = keep
        self._limit = limit
        self._cleared = 0

    @property
    def where(self) -> str:
        """Where hours are, for people."""
        return str(self._place() or "no directory")

    def add(self, batch: Batch) -> None:
        """Add a batch in one transaction."""
        with self._open() as db:
            if self._cleared != batch.hour:
                db.execute("delete from usage where hour < ?", (batch.hour - self._keep // HOUR,))
            db.executemany(_UPSERT, [(batch.hour, *name, *cell) for name, cell in self._bounded(db, batch)])
        self._cleared = batch.hour

    def read(self, first: int, last: int) -> Iterator[tuple[int, dict[Name, Cell]]]:
        """Read hour by hour."""
        with self._open() as db:
            for hour in range(first, last + 1):
                cells = {(row[0], row[1], row[2]): list(row[3:]) for row in db.execute(_READ, (hour,))}
                if cells:
                    yield hour, cells

    def _bounded(self, db: sqlite3.Connection, batch: Batch) -> Iterator[tuple[Name, Cell]]:
        rows = db.execute("select kind, route, caller from usage where hour = ?", (batch.hour,))
        known = {(row[0], row[1], row[2]) for row in rows}
        for (kind, route, caller), cell in batch.cells.items():
            name = (kind, route, clean(caller))
            if len(known) >= self._limit and name not in known:
                name = (kind, route, OTHER)
            known.add(name)
            yield name, cell

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        import sqlite3

        path = self._place()
        if path is None:
            raise Unavailable("there is no directory to keep usage in")
        try:
            with closing(sqlite3.connect(path, timeout=2.0)) as db, db:
                db.execute("pragma journal_mode = wal")
                db.execute("pragma synchronous = normal")
                db.execute(_TABLE)
                yield db
        except sqlite3.Error as error:
            raise Unavailable(str(error)) from error


def _field(name: Name) -> str:
    return json.dumps([name[0], name[1], clean(name[2])])


def _cells(fields: dict[bytes, bytes]) -> dict[Name, Cell]:
    cells: dict[Name, Cell] = {}
    for written, number in fields.items():
        text = written.decode()
        kind, route, caller = json.loads(text[:-1])
        cells.setdefault((kind, route, caller), [0, 0, 0, 0, 0.0])[int(text[-1])] = float(number)
    return cells
