"""The replicas of one application: opened, watched, told of, and closed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec
from flask import Flask
from sqlalchemy import URL, Engine, event
from sqlalchemy.exc import SQLAlchemyError

from flask_prod.core.component import Check, Finding, Installed
from flask_prod.core.errors import ConfigError

from ..engine import build_engine, parse_url
from ..settings import DatabaseSettings
from .engine import Replica, Rotation
from .lines import Guard, Lines
from .news import News
from .session import end_course
from .sticky import Stickiness
from .watch import EVERY, History, Watch, look_at_primary, look_at_replica

if TYPE_CHECKING:
    from ..handle import AppDatabase

_POSITION = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"
_HURRY = 2.0
"""Seconds that watching may take for opening a connection and for a statement."""

_READS = "Transactions that replicas served, and marked reads that went to the primary, by reason."


class Replication:
    """All that an application with DATABASE_REPLICA_URLS has more than another."""

    def __init__(self, app: Flask, settings: DatabaseSettings, kit: Installed, database: AppDatabase) -> None:
        primary, engines = database.engine, database.engines
        urls = [_replica_url(text.reveal(), primary.url) for text in settings.replica_urls]
        self.replicas = tuple(
            Replica(f"replica-{number}", _read_only(engines.open(url, f"replica-{number}")))
            for number, url in enumerate(urls, 1)
        )
        self._primary = primary
        self._settings = settings
        self._service = kit.service.service_name
        self._history = History()
        self._lock = threading.Lock()
        self._lines = {one.name: Lines() for one in self.replicas}
        for one in self.replicas:
            self._lines[one.name].follow(one.engine)
        self._threads: list[Watch | Guard] = []
        self._inherited: list[object] = []
        self._started = False
        self.news = News(self.replicas, kit)
        self.rotation = Rotation(
            self.replicas,
            least_busy=settings.replica_choice == "least-busy",
            counter=kit.meter.counter("flask_prod_database_reads_total", _READS, ("server", "reason")),
            start=self.start,
        )
        self.stickiness = Stickiness(app, kit.service.namespace, settings.sticky_seconds, primary, self._position)
        cache = kit.handle("cache")
        if cache is not None:
            cache.cookies.ignore(self.stickiness.cookie)
        sessions = database.session_factory
        sessions.configure(rotation=self.rotation, client=self.stickiness)
        event.listen(sessions, "after_transaction_end", end_course)

    def start(self) -> None:
        """Begin to watch, once per process; whoever reads first does it where no server has."""
        if self._started:
            return
        with self._lock:
            begun, self._started = self._started, True
        if not begun:
            self._watch()

    def _watch(self) -> None:
        hurry = msgspec.structs.replace(
            self._settings,
            max_open_conns=1,
            max_idle_conns=1,
            connect_timeout=_HURRY,
            statement_timeout=_HURRY,
        )
        look = partial(look_at_primary, history=self._history)
        watched: list[tuple[str, URL, Any, Callable[[str], None]]] = [
            ("primary", self._primary.url, look, lambda _error: None)
        ]
        for one in self.replicas:
            look = partial(
                look_at_replica, replica=one, history=self._history, max_lag=self._settings.replica_max_lag
            )
            watched.append((one.name, one.engine.url, look, partial(_lose, one)))
        for name, url, look, lost in watched:
            open_engine = partial(self._open_to_watch, name, url, hurry)
            self._threads.append(Watch(name, open_engine, look, lost))
        self._threads.append(Guard([(one, self._lines[one.name]) for one in self.replicas], self.news.tell))

    def _open_to_watch(self, name: str, url: URL, settings: DatabaseSettings) -> Engine:
        engine = build_engine(url, settings, f"{self._service} watch")
        lines = self._lines.get(name)
        return engine if lines is None else lines.follow(engine)

    def checks(self) -> Sequence[Check]:
        """Return one question per replica; none of them is critical, for the primary can do without."""
        return [Check(one.name, partial(self._probe, one), critical=False) for one in self.replicas]

    def after_fork(self) -> None:
        """Forget what the parent knew; its connections stay its own."""
        self._inherited.append(self._threads)
        self._lock = threading.Lock()
        self._threads = []
        for lines in self._lines.values():
            lines.forget()
        self._history = History()
        self._started = False
        self.news.forget()
        for one in self.replicas:
            one.forget()

    def close(self) -> None:
        """End the watching."""
        with self._lock:
            self._started = True
        for thread in self._threads:
            thread.stop()

    def _position(self) -> int | None:
        """Return how far the primary has come, None if it does not say; asked after requests that wrote."""
        if self._primary.dialect.name != "postgresql" or all(one.position is None for one in self.replicas):
            return None
        try:
            with self._primary.connect() as connection:
                found = connection.exec_driver_sql(_POSITION).scalar()
        except SQLAlchemyError:
            return None
        return None if found is None else int(found)

    def _probe(self, replica: Replica) -> Finding | None:
        self.start()
        end = monotonic() + 2 * EVERY
        while not replica.believed_until and monotonic() < end:
            threading.Event().wait(0.02)
        out = replica.why_out(monotonic())
        data = {} if replica.lag is None else {"lag_seconds": round(replica.lag, 3)}
        return Finding("fail" if out else "ok", out, data)


def _lose(replica: Replica, error: str) -> None:
    replica.saw(replica.lag, None, f"it cannot be reached ({error})")


def _replica_url(text: str, primary: URL) -> URL:
    url = parse_url(text, "DATABASE_REPLICA_URLS")
    if url.get_backend_name() != primary.get_backend_name():
        raise ConfigError(
            [
                f"DATABASE_REPLICA_URLS names {url.get_backend_name()}, and DATABASE_URL "
                f"{primary.get_backend_name()}: a replica is a copy of the primary."
            ]
        )
    return url


def _read_only(engine: Engine) -> Engine:
    """Let nothing be written by these connections; costs psycopg no round trip."""

    def restrict(connection: Any, _record: object) -> None:
        if hasattr(connection, "read_only"):
            connection.read_only = True
            return
        statement = _READ_ONLY.get(engine.dialect.name)
        if statement is not None:
            cursor = connection.cursor()
            cursor.execute(statement)
            cursor.close()

    event.listen(engine, "connect", restrict)
    return engine


_READ_ONLY = {
    "mysql": "SET SESSION TRANSACTION READ ONLY",
    "mariadb": "SET SESSION TRANSACTION READ ONLY",
    "sqlite": "PRAGMA query_only = ON",
}
"""For drivers that have no attribute for it."""
