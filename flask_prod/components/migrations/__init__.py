"""The migrations room: Alembic, one migrator at a time, nothing destroyed without a word."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .component import MigrationsRoom
from .settings import MigrationsSettings

if TYPE_CHECKING:
    from .engine import MigrationError, Migrations
    from .run import Run

__all__ = ["MigrationError", "Migrations", "MigrationsRoom", "MigrationsSettings", "Run"]


def __getattr__(name: str) -> Any:
    """Import what needs SQLAlchemy only when somebody asks for it."""
    if name in __all__:
        return getattr(import_module(".run" if name == "Run" else ".engine", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
