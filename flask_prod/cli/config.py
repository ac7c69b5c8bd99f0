"""`flask prod config`: the effective settings, and where each came from."""

from __future__ import annotations

import json

import click

from flask_prod.core.settings import Setting

from .group import load_state
from .table import lines


@click.command()
@click.argument("prefixes", nargs=-1, metavar="[PREFIX]...")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects instead of a table.")
@click.pass_context
def config(ctx: click.Context, prefixes: tuple[str, ...], as_json: bool) -> None:
    """Show the effective settings and where each came from.

    Secrets appear as fingerprints, addresses without passwords. With PREFIX, only settings whose names begin so.

    \b
    Examples:
      flask prod config
      flask prod config REDIS RATE_LIMIT
      flask prod config --json | jq '.[] | select(.origin != "default")'
    """
    rows = [row for row in load_state(ctx).settings.rows if _wanted(row, prefixes)]
    if as_json:
        click.echo(json.dumps([{"key": r.key, "value": r.shown, "origin": r.origin} for r in rows], indent=2))
        return
    if not rows:
        raise click.ClickException(f"No setting begins with {' or '.join(prefixes)}.")
    click.echo("\n".join(lines(("SETTING", "VALUE", "FROM"), [(r.key, r.shown, r.origin) for r in rows], {})))


def _wanted(row: Setting, prefixes: tuple[str, ...]) -> bool:
    return not prefixes or row.key.startswith(tuple(prefix.upper() for prefix in prefixes))
