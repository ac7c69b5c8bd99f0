"""The migrations of an application, where it has any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flask_prod.components.migrations.folder import find_folder
from flask_prod.core.kit import KitState

from .checked import Skipped


def migrations_of(state: KitState) -> Any:
    """Return `prod.migrations`; Skipped without the room, and where nobody has written a migration."""
    room = state.contributions.get("migrations")
    if room is None or find_folder(room.handle.settings.dir, Path(state.app.root_path)) is None:
        raise Skipped("the application has no migrations")
    return room.handle
