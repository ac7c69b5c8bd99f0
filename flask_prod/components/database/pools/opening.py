"""What a process does in the background when it begins to serve: open connections, and count them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

import click
from flask import Flask
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from flask_prod.core.component import Event, Installed
from flask_prod.core.kit import state_of
from flask_prod.core.run_dir import Leader, run_dir

from ..settings import DatabaseSettings
from . import capacity
from .adaptive import AdaptivePool
from .wanted import PRIMARY, REPLICA, wishes

logger = logging.getLogger(__name__)

_GOODBYE = 1.0
"""Seconds that the end of a process waits for a connection that is being opened just then."""


class Opening:
    """Does both once per process, in a thread of its own; a failure is for requests and health checks to tell."""

    def __init__(
        self,
        engine: Engine,
        leader: Leader,
        judge: Callable[[str, capacity.Room], Event | None],
        *,
        warm: bool,
        checks: bool,
    ) -> None:
        self._engine = engine
        self._leader = leader
        self._judge = judge
        self._warm = warm
        self._checks = checks
        self.emit: Callable[[Event], None] = lambda event: None
        self.name = ""
        self.replicas: Sequence[Engine] = ()
        self.after_fork()

    def after_fork(self) -> None:
        """Begin anew in a child, which has no thread yet."""
        self._leader.resign()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, engine: Engine) -> None:
        """Begin, with the engine that is going to be used."""
        self._engine = engine
        if self._warm or self._checks:
            self._thread = threading.Thread(target=self._run, name="flask-prod-database-opening", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End it, waiting a second at most."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_GOODBYE)
        self._leader.resign()

    def _run(self) -> None:
        try:
            if self._checks and self._leader.leads():
                self._look()
            pool = self._engine.pool
            if self._warm and isinstance(pool, AdaptivePool):
                pool.fill(self._stop)
        except Exception as error:
            logger.info("The database was not reached when the process began to serve (%s).", type(error).__name__)

    def _look(self) -> None:
        for server, engine in ((PRIMARY, self._engine), *((REPLICA, one) for one in self.replicas)):
            try:
                room = capacity.ask(engine, self.name)
            except SQLAlchemyError:
                if server == PRIMARY:
                    raise
                continue  # a replica that is away: others may be there
            told = self._judge(server, room) if room is not None else None
            if told is not None:
                self.emit(told)


def opening(app: Flask, settings: DatabaseSettings, kit: Installed, engine: Engine) -> Opening | None:
    """Return what is to be done for the primary; None where there is no server."""
    if engine.dialect.name == "sqlite":
        return None

    def judge(server: str, room: capacity.Room) -> Event | None:
        processes = capacity.web_processes()
        wish = next(one for one in wishes(settings, processes, _job_workers(app)) if one.server == server)
        return capacity.judge(settings, wish, room, processes)

    leader = Leader(run_dir(kit.service, app.root_path), "database-capacity")
    warm = settings.warm_up and not _is_job_worker()
    made = Opening(engine, leader, judge, warm=warm, checks=kit.service.production)
    made.emit, made.name = kit.emit, kit.service.service_name
    return made


def _job_workers(app: Flask) -> int:
    """Return how many job workers there are, as far as this service's settings say so."""
    rows = state_of(app).settings.rows
    return next((int(str(row.value)) for row in rows if row.key == "JOBS_WORKERS" and row.origin != "default"), 0)


def _is_job_worker() -> bool:
    """Tell whether this is `flask prod worker`: each of its processes needs a connection or two, no more."""
    context = click.get_current_context(silent=True)
    return context is not None and context.info_name == "worker"
