"""Whether this release can serve with a database that a later one has migrated: what a rollback must know."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .alembic_run import metadata_of
from .engine import MigrationError, describe
from .run import Run

if TYPE_CHECKING:
    from .engine import Migrations


def obstacles(migrations: Migrations) -> list[str]:
    """Return what in the database this code could not work with; MigrationError where no model tells.

    Tables are compared with the models, whatever revision the database is at: this code may not know it.
    """
    found: list[str] = []

    def look(_current: Any, context: Any, _script: Any) -> Iterable[Any]:
        from alembic.autogenerate import compare_metadata

        metadata: Any = context.opts.get("target_metadata") or list(metadata_of(migrations.app))
        if not metadata:
            raise MigrationError("No model says what this release needs: env.py has no target_metadata.")
        found.extend(_obstacles(compare_metadata(context, metadata)))
        return ()

    with migrations._connected() as (connection, _):
        Run(migrations, connection)._look(look)
    return found


def _obstacles(diffs: Sequence[Any]) -> Iterator[str]:
    """Yield each difference that matters to code older than the database: what is merely more there does not."""
    flat = [one for diff in diffs for one in (diff if isinstance(diff, list) else [diff])]
    new = {(diff[2], diff[3].name) for diff in flat if diff[0] == "remove_column"}
    for diff in flat:
        if diff[0] in ("add_table", "add_column", "modify_type"):
            yield f"{describe(diff)}."
        elif diff[0] == "modify_nullable" and diff[6]:
            yield f"{diff[2]}.{diff[3]} must have a value now."
        elif diff[0] == "remove_column" and _must_be_given(diff[3]):
            yield f"{diff[2]}.{diff[3].name} is new, and must have a value that this release does not give."
        elif _restricts(diff) and not {(diff[1].table.name, name) for name in _columns(diff[1])} <= new:
            yield f"{describe(diff)}: what this release writes may be refused."


def _must_be_given(column: Any) -> bool:
    given = column.server_default is not None or column.identity is not None or column.computed is not None
    return not (column.nullable or given or column.primary_key)


def _restricts(diff: Sequence[Any]) -> bool:
    """Tell whether the database refuses more than the models say."""
    unique_index = diff[0] == "remove_index" and bool(diff[1].unique)
    return unique_index or diff[0] in ("remove_constraint", "remove_fk")


def _columns(part: Any) -> list[str]:
    return [column.name for column in part.columns]
