"""`flask prod db backup`, `backups`, `verify` and `restore`."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from .engine import Backups
    from .manifest import Manifest


def db_group(backups: Backups) -> click.Group:
    """Build this room's part of the group `db` for one application."""
    group = click.Group("db", help="Migrate, back up and inspect the database.")
    for command in (_backup(backups), _list(backups), _verify(backups), _restore(backups)):
        group.add_command(command)
    return group


def _backup(backups: Backups) -> click.Command:
    @click.command("backup")
    def backup() -> None:
        """Back up the database to BACKUP_URL, then remove what BACKUP_KEEP lets go.

        \b
        Example:
          BACKUP_URL=/var/backups/shop flask prod db backup
        """
        click.echo(_line(backups.run()))

    return backup


def _list(backups: Backups) -> click.Command:
    @click.command("backups")
    @click.option("--json", "as_json", is_flag=True, help="For programs.")
    def show(as_json: bool) -> None:
        """List the backups of this service, the newest first."""
        found = backups.all()
        if as_json:
            keys = ("name", "kind", "size", "rows", "revision", "encrypted")
            rows = [
                {"made_at": one.made_at.isoformat(), **{key: getattr(one, key) for key in keys}} for one in found
            ]
            click.echo(json.dumps(rows, indent=2))
            return
        for one in found:
            click.echo(_line(one))
        for name in backups.damaged():
            click.echo(f"{name}: the manifest is damaged")
        if not found:
            click.echo("There is no backup yet.")

    return show


def _verify(backups: Backups) -> click.Command:
    @click.command("verify")
    @click.argument("name", default="latest")
    @click.option("--scratch", default="", metavar="URL", help="Make the scratch database on this server.")
    def verify(name: str, scratch: str) -> None:
        """Restore a backup into a scratch database and compare every table; exits with 1 when it is not whole.

        \b
        Examples:
          flask prod db verify
          flask prod db verify shop-20261122-053347-3fa1
        """
        report = backups.verify(name, scratch)
        found = report.manifest
        click.echo(
            f"{found.name} is whole: {found.rows:,} rows in {len(found.tables)} tables, restored and compared in "
            f"{report.seconds:.1f} s."
        )

    return verify


def _restore(backups: Backups) -> click.Command:
    @click.command("restore")
    @click.argument("name")
    @click.option("--into", required=True, envvar="RESTORE_INTO", metavar="URL",
                  help="The database's address, or `self`; RESTORE_INTO if not given.")  # fmt: skip
    @click.option("--overwrite", is_flag=True, help="Even if it has tables: those of the backup are replaced.")
    @click.option("--yes", "-y", is_flag=True, help="Do not ask.")
    def restore(name: str, into: str, overwrite: bool, yes: bool) -> None:
        """Restore the backup NAME, or the latest, into a database.

        An address with a password shows in the list of processes: give it by RESTORE_INTO.

        \b
        Examples:
          flask prod db restore latest --into postgresql://postgres@127.0.0.1/copy
          flask prod db restore latest --into self --overwrite
        """
        if not yes:
            _ask(backups.name_of(into))
        report = backups.restore(name, into, overwrite=overwrite)
        found = report.manifest
        click.echo(f"{found.name} was restored: {found.rows:,} rows in {report.seconds:.1f} s.")

    return restore


def _ask(database: str) -> None:
    """Have the name typed: the wrong database is overwritten once."""
    if not _is_terminal():
        raise click.ClickException("Nobody can be asked here: pass --yes.")
    typed = click.prompt(f"Type the name of the database to write to ({database})")
    if typed != database:
        raise click.ClickException("That is another name; nothing was done.")


def _is_terminal() -> bool:
    return sys.stdin.isatty()


def _line(one: Manifest) -> str:
    old = (datetime.now(UTC) - one.made_at).total_seconds()
    age = (
        f"{old / 86400:.0f} d"
        if old >= 172800
        else f"{old / 3600:.0f} h"
        if old >= 7200
        else f"{old / 60:.0f} min"
    )
    lock = ", encrypted" if one.encrypted else ""
    return (
        f"{one.name}  {one.size / 1e6:.1f} MB, {one.rows:,} rows in {len(one.tables)} tables, "
        f"made in {one.seconds:.1f} s, {age} ago{lock}"
    )
