"""What users hold: one engine per application, and one session per application context."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from flask import current_app, g, has_app_context
from sqlalchemy import Engine, text
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import QueuePool

from flask_prod.core.component import Finding
from flask_prod.core.errors import NotInstalled
from flask_prod.core.kit import current_state

from .engines import OWN, Engines
from .replicas.marks import FunctionT, Reading
from .tenants.names import AddressOf, NameOf, TenantRules

if TYPE_CHECKING:
    from .pools.opening import Opening
    from .pools.watch import Pools
    from .replicas.replication import Replication
    from .tenants.engine import Tenant, Tenants

logger = logging.getLogger(__name__)

_SESSION = "_flask_prod_session"

AddressOfT = TypeVar("AddressOfT", bound=AddressOf)
NameOfT = TypeVar("NameOfT", bound=NameOf)


class AppDatabase:
    """The database of one application: `engine` is that of the primary, and connects when it is first used."""

    def __init__(
        self, engine: Engine, engines: Engines, session_factory: sessionmaker[Session], *, chosen: bool
    ) -> None:
        self.engine = engine
        self.engines = engines
        self.session_factory = session_factory
        self.tenants: Tenants | None = None
        self.replication: Replication | None = None
        self.pools: Pools | None = None
        self.opening: Opening | None = None
        self._chosen = chosen
        self._closes_sessions = False
        self._inherited: list[object] = []

    @property
    def session(self) -> Session:
        """The session of the current application context: made when first asked for, closed when the context ends.

        Nothing is committed by itself: what was not committed is rolled back. Where there are tenants it is the
        session of the context's tenant.
        """
        if self.tenants is not None:
            return self.tenants.session
        session: Session | None = g.get(_SESSION)
        if session is None:
            self.close_after_contexts()
            session = self.session_factory()
            setattr(g, _SESSION, session)
        return session

    def close_after_contexts(self) -> None:
        """Have sessions closed from the first one on: applications that use none pay nothing for it.

        The list itself, since `teardown_appcontext` may only be called before the first request; in front, so that
        the application's own teardown functions, called from the end, still have the session.
        """
        if not self._closes_sessions:
            self._closes_sessions = True
            functions: list[Any] = current_app.teardown_appcontext_funcs
            functions.insert(0, self.close_session)

    def close_session(self, _error: BaseException | None = None) -> None:
        """End the session of the current context, if there is one; never raises, for other teardowns wait."""
        if self.tenants is not None:
            self.tenants.close_sessions()
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

    def start(self) -> None:
        """Take care of all engines that there are by now, and open connections in the background."""
        self.engines.settle()
        if self.replication is not None:
            self.replication.start()
        if self.opening is not None:
            self.opening.start(self._used_by_the_application())

    def _used_by_the_application(self) -> Engine:
        """Return the primary's engine, or Flask-SQLAlchemy's for the same database, which is used instead."""
        own = [engine for role, engine in self.engines.held() if role == OWN and engine.url == self.engine.url]
        return own[0] if own else self.engine

    def tend(self) -> None:
        """Do what pools need every few seconds."""
        if self.pools is not None:
            self.pools.tend(self.engines.held())

    def page(self) -> Mapping[str, Any]:
        """Return what there is to know of this process's pools."""
        return self.pools.page(self.engines.held()) if self.pools is not None else {}

    def after_fork(self) -> None:
        """Go on without the parent's connections, and without its session, which stays open."""
        if has_app_context() and _SESSION in g:
            self._inherited.append(g.pop(_SESSION))
        if self.tenants is not None:
            self.tenants.after_fork()
        if self.replication is not None:
            self.replication.after_fork()
        if self.opening is not None:
            self.opening.after_fork()
        self.engines.after_fork()

    def close(self) -> None:
        """Close every idle connection."""
        if self.replication is not None:
            self.replication.close()
        if self.opening is not None:
            self.opening.stop()
        self.engines.close()


class DatabaseFace:
    """`prod.db`: what it gives belongs to the current application."""

    def __init__(self, rules: TenantRules | None = None) -> None:
        self._rules = rules or TenantRules()

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

    def adopt(self, engine: Engine) -> Engine:
        """Take care of an engine that the application made: its pool, time limits, forks, metrics and end.

        What its owner set is kept. Call it once, in the application's context, before the engine is used.
        """
        return self._current.engines.adopt(engine)

    @property
    def session_factory(self) -> sessionmaker[Session]:
        """Makes sessions that nobody closes for you: `with prod.db.session_factory.begin() as session:`."""
        return self._current.session_factory

    @overload
    def replica(self) -> Reading: ...

    @overload
    def replica(self, function: FunctionT) -> FunctionT: ...

    def replica(self, function: FunctionT | None = None) -> FunctionT | Reading:
        """Let reads of `prod.db.session` go to a replica: of a view under this decorator, or of a `with` block.

        Works before any application exists, and changes nothing where there are no replicas.
        """
        return Reading() if function is None else Reading()(function)

    def primary(self) -> Reading:
        """Let reads of a `with` block within such a view go to the primary."""
        return Reading(replica=False)

    def tenant(self, name: str) -> Tenant:
        """Return a tenant by its name: `.session`, `.session_factory` and `.engine` are its own.

        UnknownTenant for a name that can be none, NotInstalled where DATABASE_TENANTS is off.
        """
        tenants = self._current.tenants
        if tenants is None:
            raise NotInstalled("There are no tenants: set DATABASE_TENANTS to schema or database.")
        return tenants.tenant(name)

    def tenant_url(self, function: AddressOfT) -> AddressOfT:
        """Register what returns the address of a tenant's database by its name, None for one that is unknown."""
        self._rules.address = function
        return function

    def tenant_of_request(self, function: NameOfT) -> NameOfT:
        """Register what returns the name of the current request's tenant, None when it names none.

        From then on `prod.db.session` is that tenant's; a request that names none gets an error, and no data.
        """
        self._rules.of_request = function
        return function

    @property
    def _current(self) -> AppDatabase:
        contribution = current_state().contributions.get("database")
        if contribution is None:
            raise NotInstalled(
                "database is left out of this application's kit: see only= and without= of ProdKit."
            )
        return cast(AppDatabase, contribution.handle)
