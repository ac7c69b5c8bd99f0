"""`flask prod jobs outbox`: make the table, look into it, and bring back what is dead."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..outbox.table import Outbox

_SHOWN = 50

_HELP = """Show the outbox: jobs by queue and status.

\b
Examples:
  flask prod jobs outbox
  flask prod jobs outbox create
  flask prod jobs outbox ddl          (for your own migration)
  flask prod jobs outbox dead
  flask prod jobs outbox requeue JOB_ID
"""


def outbox_command(outbox: Callable[[], Outbox]) -> click.Command:
    """Return the group; *outbox* gives the table when a command runs."""

    @click.group("outbox", help=_HELP, invoke_without_command=True, short_help="The table of jobs: create, dead.")
    @click.pass_context
    def group(context: click.Context) -> None:
        if context.invoked_subcommand is None:
            with _database_errors():
                _show(outbox())

    @group.command("create", help="Make the outbox's table, unless it is there.")
    def create() -> None:
        with _database_errors():
            table = outbox()
            made = table.create()
        click.echo(f"The table {table.table.name} {'was made' if made else 'is there already'}.")

    @group.command("ddl", help="Print the statements that make the table, for a migration of your own.")
    def ddl() -> None:
        with _database_errors():
            click.echo(outbox().ddl())

    @group.command("dead", help="List dead jobs of the table, the newest first.")
    def dead() -> None:
        with _database_errors():
            _list_dead(outbox())

    @group.command("requeue", help="Let dead jobs run again: some by their ids, or --all.")
    @click.argument("job_ids", nargs=-1)
    @click.option("--all", "every", is_flag=True, help="All dead jobs.")
    def requeue(job_ids: tuple[str, ...], every: bool) -> None:
        if not job_ids and not every:
            raise click.UsageError("Name the jobs, or say --all.")
        with _database_errors():
            click.echo(f"{_requeue(outbox(), () if every else job_ids)} jobs queued again.")

    return group


def _show(outbox: Outbox) -> None:
    import sqlalchemy as sa

    table = outbox.table
    places = (table.c.queue, table.c.status)
    query = sa.select(*places, sa.func.count(), sa.func.min(table.c.created)).where(table.c.status != "note")
    with outbox.engine.connect() as connection:
        rows = connection.execute(query.group_by(*places).order_by(*places)).all()
    if not rows:
        click.echo("The outbox is empty.")
    for queue, status, count, oldest in rows:
        click.echo(f"{queue:<24}{status:<12}{count:>8}   oldest {time.time() - oldest:.0f} s")


def _list_dead(outbox: Outbox) -> None:
    import sqlalchemy as sa

    table = outbox.table
    query = sa.select(table).where(table.c.status == "dead").order_by(table.c.moved.desc()).limit(_SHOWN)
    with outbox.engine.connect() as connection:
        for row in connection.execute(query):
            reason = row.reason.strip().rpartition("\n")[2]
            click.echo(f"{row.job_id}  {row.queue}  {row.job}  {row.error}: {reason[:100]}")


def _requeue(outbox: Outbox, job_ids: tuple[str, ...]) -> int:
    import sqlalchemy as sa

    table = outbox.table
    chosen = [table.c.status == "dead"] + ([table.c.job_id.in_(job_ids)] if job_ids else [])
    fresh = {"status": "waiting", "due": 0.0, "crashes": 0, "token": "", "told": 0, "error": "", "reason": ""}
    with outbox.engine.begin() as connection:
        return connection.execute(sa.update(table).where(*chosen).values(fresh)).rowcount


@contextmanager
def _database_errors() -> Iterator[None]:
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", error)).partition("\n")[0]
        raise click.ClickException(
            f"The outbox cannot be used: {reason}. Is DATABASE_URL right, and was `flask prod jobs outbox "
            "create` run?"
        ) from error
