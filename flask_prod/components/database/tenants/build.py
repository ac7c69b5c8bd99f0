"""Build what gives an application's tenants their sessions, as DATABASE_TENANTS says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Flask, has_request_context
from sqlalchemy import URL, Engine
from sqlalchemy.orm import Session
from werkzeug.exceptions import BadRequest, NotFound

from flask_prod.core.component import Installed
from flask_prod.core.errors import ConfigError, ProdKitError

from ..engine import create_folder, parse_url
from ..engines import TENANT, Engines
from ..parts import Parts
from ..settings import DatabaseSettings
from ..sqlite import is_file, is_file_of, path_of
from .engine import Places, Tenants
from .names import LONGEST, TenantError, TenantRules, UnknownTenant, filled
from .pools import TenantPools
from .schemas import Schemas

if TYPE_CHECKING:
    from ..handle import AppDatabase


class Databases:
    """Opens the engine of a tenant that has a database of its own."""

    def __init__(self, settings: DatabaseSettings, rules: TenantRules, engines: Engines) -> None:
        self._template = settings.tenant_url
        self._most = settings.tenant_open_conns
        self._rules = rules
        self._engines = engines

    def open(self, name: str) -> Engine:
        """Return a new engine; UnknownTenant where the application knows no address.

        Nor has a tenant without a file of SQLite one while a request is served: whoever names tenants there would
        make files.
        """
        url = self._address(name)
        create_folder(url)
        if has_request_context() and is_file_of(url) and not path_of(url).exists():
            raise UnknownTenant("There is no such tenant.")
        return self._engines.open(url, TENANT, **self._options(url))

    def _address(self, name: str) -> URL:
        if self._rules.address is not None:
            text = self._rules.address(name)
        else:
            text = filled(self._template.reveal(), name)
            if not text:
                raise ProdKitError(
                    "Nothing says where tenants live: set DATABASE_TENANT_URL, or register a function by "
                    "@prod.db.tenant_url."
                )
        if text is None:
            raise UnknownTenant("There is no such tenant.")
        try:
            url = parse_url(text)
        except ConfigError:
            raise ProdKitError(
                "The address of a tenant is none; it is not shown, for it may hold a password."
            ) from None
        if url.get_backend_name() == "postgresql" and len((url.database or "").encode()) > LONGEST:
            raise UnknownTenant(f"The name of a tenant's database has {LONGEST} letters at most.")
        return url

    def _options(self, url: URL) -> dict[str, Any]:
        if url.get_backend_name() == "sqlite" and not is_file(url):
            return {}
        return {"pool_size": 1, "max_overflow": self._most - 1}


def build_tenants(
    kit: Installed, settings: DatabaseSettings, parts: Parts, database: AppDatabase
) -> Tenants | None:
    """Return the tenants of an application, None where it has none; *database* is what they share."""
    if settings.tenants == "off":
        return None
    places: Places
    if settings.tenants == "schema":
        places = Schemas(database.engine, settings.tenant_schema)
    else:
        databases = Databases(settings, parts.rules, database.engines)
        places = TenantPools(databases.open, settings.tenant_pools, parts.tenant_pools.set)
    session_class: type[Session] = type("TenantSession", (Session,), {})
    cache = kit.handle("cache")
    if cache is not None:
        cache.follow(database.engine, session_class)
    _answer(kit.app)
    return Tenants(places, parts.rules, session_class, database.close_after_contexts)


def _answer(app: Flask) -> None:
    """Answer 404 and 400 where the application has no error handler of its own."""

    def answer(error: TenantError) -> Any:
        if isinstance(error, UnknownTenant):
            return NotFound("There is no such tenant.")
        return BadRequest("The request does not say which tenant it is for.")

    app.error_handler_spec[None][None].setdefault(TenantError, answer)
