"""What users hold: one engine per application, and one session per application context."""

from __future__ import annotations

import logging
from typing import Any, cast

from flask import current_app, g, has_app_context
from sqlalchemy import Engine, text
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import QueuePool

from flask_prod.core.component import Finding
from flask_prod.core.errors import NotInstalled
from flask_prod.core.kit import current_state

from .engines import Engines

logger = logging.getLogger(__name__)

_SESSION = "_flask_prod_session"


class AppDatabase:
    """The database of one application: `engine` is that of the primary, and connects when it is first used."""

    def __init__(
        self, engine: Engine, engines: Engines, session_factory: sessionmaker[Session], *, chosen: bool
    ) -> None:
        self.engine = engine
        self.engines = engines
        self.session_factory = session_factory
        self._chosen = chosen
        self._closes_sessions = False
        self._inherited: list[object] = []

    @property
    def session(self) -> Session:
        """The session of the current application context: made when first asked for, closed when the context ends.

        Nothing is committed by itself: what was not committed is rolled back.
        """
        session: Session | None = g.get(_SESSION)
        if session is None:
            self._close_after_contexts(current_app.teardown_appcontext_funcs)
            session = self.session_factory()
            setattr(g, _SESSION, session)
        return session

    def _close_after_contexts(self, functions: list[Any]) -> None:
        """Have sessions closed from the first one on: applications that use none pay nothing for it.

        The list itself, since `teardown_appcontext` may only be called before the first request; in front, so that
        the application's own teardown functions, called from the end, still have the session.
        """
        if not self._closes_sessions:
            self._closes_sessions = True
            functions.insert(0, self.close_session)

    def close_session(self, _error: BaseException | None = None) -> None:
        """End the session of the current context, if there is one; never raises, for other teardowns wait."""
        session: Session | None = g.pop(_SESSION, None)
        if session is None:
            return
        try:
            session.close()
        except Exception:
            logger.warning("A database session could not be closed; its connection is dropped.", exc_info=True)
            session.invalidate()

    def ping(self) -> Finding | None:
        """Ask the server for `SELECT 1`; raises when it does not answer."""
        if not self._chosen and not self._used():
            return Finding(detail="not used: DATABASE_URL is not set and nothing was stored")
        try:
            with self.engine.connect() as connection:
                connection.execute(text("SELECT 1"))
        except PoolTimeout:
            return Finding("warn", "every connection of this process is in use")
        return None

    def _used(self) -> bool:
        pool = cast(QueuePool, self.engine.pool)
        return pool.checkedin() + pool.checkedout() > 0

    def after_fork(self) -> None:
        """Go on without the parent's connections, and without its session, which stays open."""
        if has_app_context() and _SESSION in g:
            self._inherited.append(g.pop(_SESSION))
        self.engines.after_fork()

    def close(self) -> None:
        """Close every idle connection."""
        self.engines.close()


class DatabaseFace:
    """`prod.db`: what it gives belongs to the current application."""

    @property
    def session(self) -> Session:
        """The session of the current application context; NotInstalled outside of one."""
        if current_app:
            session: Session | None = g.get(_SESSION)
            if session is not None:
                return session
        return self._current.session

    @property
    def engine(self) -> Engine:
        """The engine of the current application."""
        return self._current.engine

    @property
    def session_factory(self) -> sessionmaker[Session]:
        """Makes sessions that nobody closes for you: `with prod.db.session_factory.begin() as session:`."""
        return self._current.session_factory

    @property
    def _current(self) -> AppDatabase:
        contribution = current_state().contributions.get("database")
        if contribution is None:
            raise NotInstalled(
                "database is left out of this application's kit: see only= and without= of ProdKit."
            )
        return cast(AppDatabase, contribution.handle)
