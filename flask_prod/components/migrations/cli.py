"""`flask prod db upgrade`, `downgrade`, `check`, `fits` and `lock`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from flask_prod.core.values import parse_duration

if TYPE_CHECKING:
    from .engine import Migrations, Plan

_YES = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
_SQL = click.option("--sql", "only_sql", is_flag=True, help="Print the SQL and change nothing.")
_LOSE = click.option("--allow-destructive", is_flag=True, help="Even if data is lost.")


def db_group(migrations: Any) -> click.Group:
    """Build this room's part of the group `db` for one application."""
    group = click.Group("db", help="Migrate, back up and inspect the database.")
    for command in (_upgrade, _downgrade, _check, _fits, _lock):
        group.add_command(command(migrations))
    return group


def _upgrade(migrations: Migrations) -> click.Command:
    @click.command("upgrade")
    @click.argument("revision", default="head")
    @_YES
    @_SQL
    @_LOSE
    def upgrade(revision: str, yes: bool, only_sql: bool, allow_destructive: bool) -> None:
        """Apply what is pending: print the SQL, ask, and run it as the only migrator.

        Steps that destroy data are refused without --allow-destructive. Another migrator is waited for.

        \b
        Examples:
          flask prod db upgrade
          flask prod db upgrade --sql
          flask prod db upgrade --yes
        """
        plan = migrations.plan(revision)
        if not plan.steps:
            click.echo(f"The database is up to date ({_words(plan)}).")
            return
        _show(plan)
        if only_sql:
            return
        if plan.dangers and not allow_destructive:
            from .guard import Destructive

            raise Destructive(list(plan.dangers))
        _ask(f"Apply {_count(plan)}?", yes)
        done = migrations.upgrade(revision, allow_destructive=allow_destructive)
        click.echo(f"Applied {', '.join(done)}." if done else "Another process has applied it in the meantime.")

    return upgrade


def _downgrade(migrations: Migrations) -> click.Command:
    @click.command("downgrade", context_settings={"ignore_unknown_options": True})
    @click.argument("revision")
    @_YES
    @_SQL
    @_LOSE
    def downgrade(revision: str, yes: bool, only_sql: bool, allow_destructive: bool) -> None:
        """Undo migrations down to REVISION: an identifier, -1 for the last one, or base for all.

        \b
        Examples:
          flask prod db downgrade -1 --sql
          flask prod db downgrade 0001 --allow-destructive
        """
        plan = migrations.plan(revision, down=True)
        if not plan.steps:
            click.echo(f"There is nothing to undo ({_words(plan)}).")
            return
        _show(plan)
        if only_sql:
            return
        if not allow_destructive:
            from .guard import Destructive

            raise Destructive(list(plan.dangers) or ["undoes " + step for step in plan.steps])
        _ask(f"Undo {_count(plan)}?", yes)
        click.echo(f"Undone: {', '.join(migrations.downgrade(revision))}.")

    return downgrade


def _check(migrations: Migrations) -> click.Command:
    @click.command("check")
    def check() -> None:
        """Tell whether the database is what the code needs; exits with 1 when it is not.

        Looks for pending revisions, several heads, and tables that differ from the models.
        """
        problems = migrations.check()
        for problem in problems:
            click.echo(problem)
        if problems:
            raise click.exceptions.Exit(1)
        click.echo("The database is up to date, and as the models say.")

    return check


def _fits(migrations: Migrations) -> click.Command:
    @click.command("fits")
    def fits() -> None:
        """Tell whether this release can serve with a database that a later one has migrated: before a rollback.

        New tables and indexes, and columns that need no value, are no obstacle; all else is, and exits with 1.
        """
        from .older import obstacles

        found = obstacles(migrations)
        for obstacle in found:
            click.echo(obstacle)
        if found:
            raise click.exceptions.Exit(1)
        click.echo("This release can serve with the database as it is.")

    return fits


def _lock(migrations: Migrations) -> click.Command:
    @click.command("lock")
    @click.option(
        "--wait", metavar="DURATION", is_flag=False, flag_value="10m", help="Wait until it is free: 30s, 10m."
    )
    @click.option("--release", is_flag=True, help="End the holder's connection, which undoes its work.")
    @_YES
    def lock(wait: str | None, release: bool, yes: bool) -> None:
        """Show who migrates now; exits with 1 when somebody does.

        \b
        Examples:
          flask prod db lock
          flask prod db lock --wait 5m && flask prod db upgrade --yes
        """
        if wait is not None and migrations.wait_until_free(_seconds(wait)):
            click.echo("Nobody migrates.")
            return
        holder = migrations.holder()
        if holder is None:
            click.echo("Nobody migrates.")
            return
        click.echo(f"{holder} migrates.")
        if not release:
            raise click.exceptions.Exit(1)
        _ask("End it?", yes)
        if not migrations.end_holder(holder):
            raise click.ClickException(f"End the process {holder.pid}: the lock ends with it.")
        click.echo("Its connection was ended.")

    return lock


def _show(plan: Plan) -> None:
    for step in plan.steps:
        click.echo(f"-- {step}")
    if plan.sql is None:
        click.echo(f"-- The SQL depends on the database ({plan.why}): each statement is looked at as it runs.")
    else:
        click.echo(plan.sql)


def _ask(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.ClickException("Nobody can be asked here: pass --yes.")
    click.confirm(question, abort=True)


def _seconds(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError:
        raise click.BadParameter("takes a duration such as 30s or 5m", param_hint="--wait") from None


def _count(plan: Plan) -> str:
    return "1 migration" if len(plan.steps) == 1 else f"{len(plan.steps)} migrations"


def _words(plan: Plan) -> str:
    return ", ".join(plan.before) or "no revision"
