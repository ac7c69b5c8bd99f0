"""The tenants of one application: whose session, and by which engine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from flask import g, has_app_context, has_request_context
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from .names import NoTenant, TenantRules, checked

logger = logging.getLogger(__name__)

_SESSIONS = "_flask_prod_tenant_sessions"
_ACTIVE = "_flask_prod_tenant"


class Places(Protocol):
    """Where tenants live: engines by name."""

    def engine(self, name: str) -> Engine:
        """Return a tenant's engine."""

    def lease(self, name: str) -> Engine:
        """Return a tenant's engine, which stays open until `release`."""

    def release(self, name: str) -> None:
        """Give back what `lease` gave."""

    def after_fork(self) -> None:
        """Begin anew in a child."""


class Tenant:
    """One tenant of the current application; holds no connection, so that it may be kept."""

    def __init__(self, tenants: Tenants, name: str) -> None:
        self._tenants = tenants
        self.name = name

    @property
    def engine(self) -> Engine:
        """The tenant's engine; ask again rather than keep it: one that is not used is closed for others."""
        return self._tenants.places.engine(self.name)

    @property
    def session(self) -> Session:
        """The tenant's session of the current context, closed when the context ends."""
        return self._tenants.session_of(self.name)

    @property
    def session_factory(self) -> sessionmaker[Session]:
        """Makes sessions of this tenant that nobody closes for you."""
        return sessionmaker(self.engine, class_=self._tenants.session_class)

    @contextmanager
    def active(self) -> Iterator[Tenant]:
        """Make `prod.db.session` this tenant's within the block: in jobs, commands and tests."""
        before = g.get(_ACTIVE)
        setattr(g, _ACTIVE, self.name)
        try:
            yield self
        finally:
            setattr(g, _ACTIVE, before)

    def __repr__(self) -> str:
        return f"<Tenant {self.name}>"


class Tenants:
    """Gives each context the session of its tenant, and of no other.

    `closing` is called before the first session of a context is made: it sees to `close_sessions` at its end.
    """

    def __init__(
        self, places: Places, rules: TenantRules, session_class: type[Session], closing: Callable[[], None]
    ) -> None:
        self.places = places
        self.session_class = session_class
        self._rules = rules
        self._closing = closing
        self._inherited: list[object] = []

    def tenant(self, name: str) -> Tenant:
        """Return the tenant of this name; UnknownTenant for a name that can be none."""
        return Tenant(self, checked(name))

    @property
    def session(self) -> Session:
        """The session of the current context's tenant; NoTenant when none is named."""
        return self.session_of(self.current)

    @property
    def current(self) -> str:
        """The name of the current context's tenant, asked for until there is one; NoTenant when there is none."""
        name: str | None = g.get(_ACTIVE)
        if name is None:
            name = self._ask()
            setattr(g, _ACTIVE, name)
        return name

    def _ask(self) -> str:
        if not has_request_context():
            raise NoTenant(
                "Outside of a request prod.db.session belongs to nobody: use prod.db.tenant(name).session, or "
                "`with prod.db.tenant(name).active():`. The shared database is prod.db.session_factory."
            )
        if self._rules.of_request is None:
            raise NoTenant(
                "Nothing names the tenant of a request: register a function by @prod.db.tenant_of_request."
            )
        name = self._rules.of_request()
        if name is None:
            raise NoTenant("This request names no tenant.")
        return checked(name)

    def session_of(self, name: str) -> Session:
        """Return a tenant's session of the current context; made when first asked for."""
        sessions: dict[str, Session] | None = g.get(_SESSIONS)
        if sessions is None:
            self._closing()
            sessions = {}
            setattr(g, _SESSIONS, sessions)
        session = sessions.get(name)
        if session is None:
            session = sessions[name] = self.session_class(self.places.lease(name))
        return session

    def close_sessions(self) -> None:
        """End the sessions of the current context; never raises, for other teardowns wait."""
        sessions: dict[str, Session] = g.pop(_SESSIONS, None) or {}
        for name, session in sessions.items():
            try:
                session.close()
            except Exception:
                logger.warning("A tenant's session could not be closed; its connection is dropped.", exc_info=True)
                session.invalidate()
            finally:
                self.places.release(name)

    def after_fork(self) -> None:
        """Go on without the parent's sessions, which are kept: closing them would speak on its connections."""
        if has_app_context():
            self._inherited.append(g.pop(_SESSIONS, None))
        self.places.after_fork()
