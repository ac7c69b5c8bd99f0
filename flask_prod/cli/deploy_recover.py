"""`flask prod deploy recover` and `drill`: the way back from a destroyed database, and its rehearsal."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from flask_prod.deploy.checked import good
from flask_prod.deploy.recovery import RTO, SKIPPED, Drill, Options, Recovery, room_of

from .deploy_verify import Span, as_text, shown
from .group import load_state

_RTO = click.option(
    "--rto", type=Span(), default=f"{RTO:g}s", show_default=True, help="Fail when it takes longer."
)
_RPO = click.option("--rpo", type=Span(), default="0s", help="Fail when more is lost than this; 0 for any.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")


@click.command("recover")
@click.option("--backup", "name", default="latest", show_default=True, metavar="NAME", help="Which backup.")
@click.option(
    "--overwrite", is_flag=True, help="Even if the database has tables: those of the backup are replaced."
)
@click.option("--skip-ids", "skip", type=click.IntRange(0), default=SKIPPED, show_default=True,
              help="Leave out so many numbers, which may have been given since the backup.")  # fmt: skip
@click.option("--lost-at", type=click.DateTime(), help="When the database was lost, in UTC; now if not given.")
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Write which jobs came after the backup, with their arguments.")  # fmt: skip
@_RTO
@_RPO
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@_JSON
@click.pass_context
def recover(ctx: click.Context, /, as_json: bool, yes: bool, lost_at: datetime | None, **options: Any) -> None:
    """Bring the service's own database back from its backup, in order and by the clock.

    Stop web and workers first, and make an empty database. Restores, compares every table, lets sequences go on
    later, migrates, counts what waits in the outbox, and says what Redis knows of the time after the backup. RTO
    is how long that took, RPO how much older than the loss the backup is. docs/deploy/drills.md has the rest.

    \b
    Examples:
      flask prod deploy recover --report lost.json
      flask prod deploy recover --backup shop-20261122-021500-3fa1 --lost-at "2026-11-22 09:41:00" --yes
    """
    state = load_state(ctx)
    if not yes:
        _ask(room_of(state, "backups").name_of("self"))
    moment = lost_at.replace(tzinfo=UTC) if lost_at else None
    recovery = Recovery(state, Options(lost_at=moment, **options))
    results = list(shown(recovery.results(), as_json))
    if as_json:
        click.echo(as_text({"rto": round(recovery.rto, 1), "rpo": round(recovery.rpo, 1)}, results))
    ctx.exit(0 if good(results) else 1)


@click.command("drill")
@click.option("--backup", "name", default="latest", show_default=True, metavar="NAME", help="Which backup.")
@click.option("--fresh", is_flag=True, help="Make a backup first.")
@click.option("--scratch", default="", metavar="URL", help="Make the scratch database on this server.")
@_RTO
@_RPO
@_JSON
@click.pass_context
def drill(ctx: click.Context, /, as_json: bool, fresh: bool, scratch: str, **options: Any) -> None:
    """Rehearse the way back: the last backup into a scratch database, compared, measured and dropped.

    Nothing of the service is touched. RTO is how long it took, RPO how old the backup is. Exits with 1 when it is
    not whole, or beyond a limit.

    \b
    Examples:
      flask prod deploy drill --rpo 26h
      flask prod deploy drill --fresh --rto 1m --json
    """
    rehearsal = Drill(load_state(ctx), Options(**options), scratch, fresh)
    results = list(shown(rehearsal.results(), as_json))
    if as_json:
        click.echo(as_text({"rto": round(rehearsal.rto, 1), "rpo": round(rehearsal.rpo, 1)}, results))
    ctx.exit(0 if good(results) else 1)


def _ask(database: str) -> None:
    """Have the name typed: the wrong database is overwritten once."""
    if not sys.stdin.isatty():
        raise click.ClickException("Nobody can be asked here: pass --yes.")
    if click.prompt(f"Type the name of the database to write to ({database})") != database:
        raise click.ClickException("That is another name; nothing was done.")
