"""Find the way from one revision to another, and say in plain words why there is none."""

from __future__ import annotations

from typing import Any

from alembic.util import CommandError

from .engine import MigrationError, first_line


def look_up(script: Any, current: tuple[str, ...]) -> None:
    """Raise MigrationError where the database is at a revision that no script has, or a script follows such."""
    try:
        script.get_heads()
    except KeyError as error:
        raise MigrationError(
            f"A migration in {script.dir} follows the revision {error.args[0]}, and none is called so: bring that "
            "script back, or mend `down_revision`."
        ) from error
    for one in current:
        try:
            script.get_revision(one)
        except CommandError as error:
            raise MigrationError(
                f"The database is at revision {one}, and no migration in {script.dir} is called so: another "
                "version of the code has migrated it. Go on with that version, whose `flask prod db downgrade` "
                "would undo it, or bring its script back from version control."
            ) from error


def steps_to(script: Any, revision: str, current: tuple[str, ...], *, down: bool) -> list[Any]:
    """Return what leads from *current* to *revision*; MigrationError where nothing does."""
    look_up(script, current)
    find = script._downgrade_revs if down else script._upgrade_revs
    try:
        return list(find(revision, current))
    except CommandError as error:
        here = ", ".join(current) or "no revision"
        raise MigrationError(
            f"There is no way from {here} to {revision}: {first_line(error)}. `alembic history` lists "
            "what there is; head is the newest revision, base the one before all."
        ) from error


def title(step: Any) -> str:
    """Return a step's revision, with its words."""
    return f"{step.revision.revision} ({step.revision.doc})" if step.revision.doc else str(step.revision.revision)
