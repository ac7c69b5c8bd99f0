"""Names of tenants, who gives them, and what is said about one that is none."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TypeAlias

from flask_prod.core.errors import ProdKitError

PLACE = "{tenant}"
"""What stands for a tenant's name in DATABASE_TENANT_URL and DATABASE_TENANT_SCHEMA."""

LONGEST = 63
"""Bytes of a name in PostgreSQL, which cuts longer ones in silence: two tenants would become one."""

_SCHEMA = re.compile(r"[a-z0-9_]+")
"""What is around the name: without it, a tenant called public or pg_catalog would be at home everywhere."""

_NAME = re.compile(r"[a-z0-9_-]{1,63}")

AddressOf: TypeAlias = Callable[[str], "str | None"]
"""Gives a tenant's address; None when there is no such tenant."""

NameOf: TypeAlias = Callable[[], "str | None"]
"""Gives the name of the current request's tenant; None when it names none."""


class TenantError(ProdKitError):
    """A tenant's database cannot be given; the request gets 400 or 404, unless the application has a handler."""


class NoTenant(TenantError):
    """A session was asked for where no tenant is named; answered with 400."""


class UnknownTenant(TenantError):
    """There is no tenant of this name, or the name can be none; answered with 404."""


class TenantRules:
    """What users register on `prod.db` before any application exists."""

    def __init__(self) -> None:
        self.address: AddressOf | None = None
        self.of_request: NameOf | None = None


def checked(name: object) -> str:
    """Return *name*; UnknownTenant unless it is 1 to 63 of a-z, 0-9, - and _."""
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    raise UnknownTenant("A tenant's name has 1 to 63 letters a-z, digits, - and _.")


def filled(template: str, name: str) -> str:
    """Return *template* with a checked name in it."""
    return template.replace(PLACE, name)


def tenant_problems(mode: str, url: str, tenant_url: str, schema: str) -> Iterator[str]:
    """Yield what is wrong between the settings of tenants: two of them must never be one."""
    if tenant_url and PLACE not in tenant_url:
        yield f"DATABASE_TENANT_URL must have {PLACE} in it: without, all tenants would share one database."
    if PLACE not in schema or not _SCHEMA.fullmatch(filled(schema, "")):
        yield f"DATABASE_TENANT_SCHEMA must be letters a-z, digits and _ around {PLACE}."
    if mode == "schema" and not url.startswith(("postgresql", "postgres:")):
        yield "DATABASE_TENANTS=schema needs PostgreSQL as DATABASE_URL; elsewhere use database."
