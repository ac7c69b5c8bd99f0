"""`flask prod jobs`: what waits, runs and has failed, queue by queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from flask_prod.core.errors import ProdKitError
from flask_prod.core.ports import RedisPort

if TYPE_CHECKING:
    from flask_prod.core.later import Later

    from .engine import Engine, QueueState

_COLUMNS = ("queue", "waiting", "scheduled", "running", "failed", "workers")

_HELP = """Show the queues: jobs waiting, scheduled, running and failed, and living workers.

Counts only; it changes nothing in Redis. Exits with 1 when Redis cannot be reached.

\b
Examples:
  flask prod jobs
  flask prod jobs --json
"""


def jobs_command(engine: Engine | Later, redis: RedisPort) -> click.Command:
    """Return the group for one application; later commands about jobs go below it."""

    @click.group("jobs", help=_HELP, invoke_without_command=True, short_help="Show the queues of background jobs.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
    @click.pass_context
    def jobs(context: click.Context, as_json: bool) -> None:
        if context.invoked_subcommand is not None:
            return
        if not redis.configured:
            raise click.ClickException("There is no REDIS_URL, so there are no queues.")
        try:
            states = engine.overview()
        except ProdKitError as error:
            raise click.ClickException(str(error)) from error
        click.echo(msgspec.json.encode(states).decode() if as_json else _table(states))

    return jobs


def _table(states: list[QueueState]) -> str:
    rows = [_COLUMNS, *(tuple(str(getattr(state, column)) for column in _COLUMNS) for state in states)]
    width = max(len(row[0]) for row in rows)
    return "\n".join(row[0].ljust(width) + "".join(cell.rjust(11) for cell in row[1:]) for row in rows)
