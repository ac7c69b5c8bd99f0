"""The backups room: dumps that are checked, kept for as long as asked, and proved by restoring them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .component import BackupsRoom
from .settings import BackupSettings

if TYPE_CHECKING:
    from .engine import Backups
    from .manifest import BackupError, Manifest

__all__ = ["BackupError", "BackupSettings", "Backups", "BackupsRoom", "Manifest"]


def __getattr__(name: str) -> Any:
    """Import what only a backup needs when somebody asks for it."""
    if name in __all__:
        return getattr(import_module(".engine" if name == "Backups" else ".manifest", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
