"""The database room: one SQLAlchemy engine per application, and a session that follows the application context."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .component import Database
from .settings import DatabaseSettings
from .tenants.names import NoTenant, TenantError, UnknownTenant

if TYPE_CHECKING:
    from .engine import build_engine
    from .handle import AppDatabase, DatabaseFace

__all__ = [
    "AppDatabase",
    "Database",
    "DatabaseFace",
    "DatabaseSettings",
    "NoTenant",
    "TenantError",
    "UnknownTenant",
    "build_engine",
]


def __getattr__(name: str) -> Any:
    """Import what needs SQLAlchemy only when somebody asks for it."""
    if name in ("AppDatabase", "DatabaseFace"):
        return getattr(import_module(".handle", __name__), name)
    if name == "build_engine":
        return import_module(".engine", __name__).build_engine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
