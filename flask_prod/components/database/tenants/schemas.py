"""Schemas of the shared server as places of tenants: no pools of their own, and so nothing to close."""

from __future__ import annotations

from sqlalchemy import Engine

from .names import LONGEST, UnknownTenant, filled
from .schema import SchemaEngine, unbind_at_checkin

_MOST_KEPT = 1000
"""Engines that are kept to be given again; one costs about 2 KB and is made in 20 us."""


class Schemas:
    """Gives each tenant the shared engine, bound to the tenant's schema."""

    def __init__(self, shared: Engine, template: str) -> None:
        self._shared = shared
        self._template = template
        self._engines: dict[str, Engine] = {}
        unbind_at_checkin(shared)

    def engine(self, name: str) -> Engine:
        """Return a tenant's engine; UnknownTenant for a name too long for a schema."""
        engine = self._engines.get(name)
        if engine is None:
            engine = SchemaEngine(self._shared, self.schema(name))
            if len(self._engines) >= _MOST_KEPT:
                self._engines = {}
            self._engines[name] = engine
        return engine

    def schema(self, name: str) -> str:
        """Return the name of a tenant's schema, which PostgreSQL would cut in silence if it were too long."""
        schema = filled(self._template, name)
        if len(schema) > LONGEST:
            raise UnknownTenant(f"The name of a tenant's schema has {LONGEST} letters at most.")
        return schema

    lease = engine

    def release(self, name: str) -> None:
        """Do nothing: no pool waits for it."""

    def after_fork(self) -> None:
        """Do nothing: the pool is the shared one."""
