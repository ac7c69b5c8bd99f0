"""The settings of the database room."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from flask_prod.core.settings import Section
from flask_prod.core.values import Duration, SecretUrl

from .tenants.names import tenant_problems


class DatabaseSettings(Section, frozen=True, kw_only=True):
    """Where the database is, and how much of it one process may take."""

    prefix: ClassVar[str] = "DATABASE_"
    keys: ClassVar[Mapping[str, tuple[str, ...]]] = {"slow_query": ("LOG_SLOW_QUERY",)}
    live: ClassVar[tuple[str, ...]] = ("slow_query",)

    url: SecretUrl = SecretUrl("")
    """The SQLAlchemy address; if empty, an SQLite file called after the service in the instance folder."""

    replica_urls: tuple[SecretUrl, ...] = ()
    """Addresses of read-only copies of it, which reads that are marked for a replica go to."""

    replica_choice: Literal["round-robin", "least-busy"] = "round-robin"
    """How one of several replicas is chosen: in turn, or the one that this process has the fewest queries on."""

    replica_max_lag: Duration = 5.0
    """A replica that is further behind takes no reads until it has caught up; told on PostgreSQL."""

    sticky_seconds: Duration = 10.0
    """How long a client that wrote reads from the primary, unless a replica has what it wrote before that."""

    max_open_conns: Annotated[int, Meta(ge=1, le=1000)] = 10
    """How many connections one process may hold, opened while requests wait: eight threads, and two more."""

    max_idle_conns: Annotated[int, Meta(ge=1, le=1000)] = 8
    """How many of them stay open when nobody needs them; more than DATABASE_MAX_OPEN_CONNS means all."""

    conn_max_lifetime: Duration = 1800.0
    """A connection older than this is replaced at its next use; 0 never replaces one for its age."""

    conn_max_idle_time: Duration = 600.0
    """A connection unused for longer is closed, or replaced at its next use if it is to stay; 0 keeps all."""

    warm_up: bool = True
    """Open what stays open when a process starts, in the background; not for SQLite."""

    connect_timeout: Duration = 2.0
    """How long opening a connection may take; PostgreSQL knows whole seconds, two at least."""

    statement_timeout: Duration = 30.0
    """How long one statement may run before it ends with 504, except on SQLite; 0 leaves it to the server."""

    tls: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] | None = None
    """Whether connections are encrypted, and which certificate is accepted; empty leaves it to the driver."""

    tls_ca: str = ""
    """The file with the certificates that may have signed the server's; empty takes those of the system."""

    tls_cert: str = ""
    """The file with the certificate that this client shows."""

    tls_key: str = ""
    """The file with that certificate's key."""

    slow_query: Duration = 0.5
    """A query that takes longer has a line in the log, without its values; 0 logs none."""

    tenants: Literal["off", "schema", "database"] = "off"
    """Whether each tenant has a schema of this database (PostgreSQL) or a database of its own."""

    tenant_url: SecretUrl = SecretUrl("")
    """The address of a tenant's own database, with {tenant} for its name; or else see `@prod.db.tenant_url`."""

    tenant_schema: str = "tenant_{tenant}"
    """The name of a tenant's schema."""

    tenant_pools: Annotated[int, Meta(ge=1, le=10_000)] = 50
    """How many tenants' own databases one process is connected to; the one not used for longest is closed."""

    tenant_open_conns: Annotated[int, Meta(ge=1, le=1000)] = 4
    """How many connections one process may hold to one tenant's own database; one of them stays open."""

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with tenants, and with the files of TLS, before a connection would say so."""
        if self.replica_urls and not self.url:
            yield "DATABASE_REPLICA_URLS names copies of a database that DATABASE_URL must name."
        if self.replica_urls and self.sticky_seconds < self.replica_max_lag + 2.5:
            yield (
                "DATABASE_STICKY_SECONDS must be at least 2.5 seconds more than DATABASE_REPLICA_MAX_LAG: a "
                "client might not see what it has just written."
            )
        if self.tls == "verify-ca" and not self.tls_ca:
            yield "DATABASE_TLS=verify-ca needs DATABASE_TLS_CA, the file with the authority's certificate."
        if (self.tls_ca or self.tls_cert or self.tls_key) and self.tls in (None, "disable"):
            yield "DATABASE_TLS_CA, _CERT and _KEY have no effect: set DATABASE_TLS to verify-full."
        for key, path in (("CA", self.tls_ca), ("CERT", self.tls_cert), ("KEY", self.tls_key)):
            if path and not os.access(path, os.R_OK):
                yield f"DATABASE_TLS_{key} names {path}, which is no file that can be read."
        yield from tenant_problems(self.tenants, self.url.reveal(), self.tenant_url.reveal(), self.tenant_schema)
