"""`flask prod health`: of this process's application, or of a running service."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from flask_prod.components.health.settings import HealthSettings
from flask_prod.core.errors import NotInstalled
from flask_prod.core.settings import peek
from flask_prod.core.sources import find_sources

from .group import load_state
from .remote import ask
from .table import coloured, lines, printable


@click.command()
@click.option(
    "--url", metavar="URL", help="Ask a running service instead: http://host:port, or the probe's address."
)
@click.option("--token", metavar="TOKEN", help="Sent to the service; HEALTH_TOKEN if not given.")
@click.option("--timeout", default=10.0, show_default=True, help="Seconds to wait for a running service.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.pass_context
def health(ctx: click.Context, url: str | None, token: str | None, timeout: float, as_json: bool) -> None:
    """Ask every check, here or in a running service.

    Exits with 0 when all is healthy, with 1 when it is degraded or unhealthy, or cannot be asked. A running
    service tells details only to those who send its HEALTH_TOKEN.

    \b
    Examples:
      flask prod health
      flask prod health --json | jq .checks.redis
      flask prod health --url http://127.0.0.1:8000
      HEALTH_TOKEN_FILE=/run/secrets/health flask prod health --url https://shop.example.com
    """
    found = _of_this_process(ctx) if url is None else _of_a_service(url, token, timeout)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        _print(found)
    ctx.exit(0 if found.get("status") == "healthy" else 1)


def _of_this_process(ctx: click.Context) -> dict[str, Any]:
    """Run the checks in this process."""
    room = load_state(ctx).contributions.get("health")
    if room is None:
        raise NotInstalled("This application leaves the health room out: see only= and without= of ProdKit.")
    values: dict[str, Any] = msgspec.to_builtins(room.handle.summary(), enc_hook=str)
    return values


def _of_a_service(url: str, token: str | None, timeout: float) -> dict[str, Any]:
    sources = find_sources({}, Path.cwd())
    if token is None:
        token = peek(sources, HealthSettings, "token").reveal()
    return ask(url, peek(sources, HealthSettings, "path"), token, timeout)


def _print(found: Mapping[str, Any]) -> None:
    who = " ".join(str(found[key]) for key in ("service", "version", "environment") if found.get(key))
    click.echo(coloured(str(found["status"])) + (f"  {printable(who)}" if who else ""))
    checks = found.get("checks")
    if checks is None:
        click.echo("The service tells no details without its HEALTH_TOKEN.")
    elif not checks:
        click.echo("There are no checks.")
    else:
        rows = [_row(name, check) for name, check in checks.items()]
        click.echo("\n".join(lines(("CHECK", "STATUS", "LATENCY", "SINCE", "DETAIL"), rows)))


def _row(name: str, check: Mapping[str, Any]) -> tuple[str, ...]:
    critical = "" if check.get("critical") else " (not critical)"
    latency = f"{check.get('latency_ms', 0)} ms"
    return (
        name + critical,
        str(check.get("status")),
        latency,
        _ago(check.get("since")),
        str(check.get("detail", "")),
    )


def _ago(since: object) -> str:
    """Return how long a status has lasted, in its largest unit."""
    try:
        seconds = (datetime.now(UTC) - datetime.fromisoformat(str(since))).total_seconds()
    except (ValueError, TypeError):
        return ""
    units = ((86400, "d"), (3600, "h"), (60, "min"))
    return next((f"{seconds / unit:.0f} {name}" for unit, name in units if seconds >= unit), f"{seconds:.0f} s")
