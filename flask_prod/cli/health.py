"""`flask prod health`: of this process's application, or of a running service."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from flask_prod.components.health.settings import HealthSettings
from flask_prod.core.errors import NotInstalled
from flask_prod.core.gate import tokens_of
from flask_prod.core.settings import peek
from flask_prod.core.sources import find_sources

from .group import load_state
from .remote import ask
from .table import coloured, lines, printable

EVERY = 2.0
"""Seconds between two looks of --watch."""

_CLEAR = "\x1b[H\x1b[2J"


@click.command()
@click.option(
    "--url", metavar="URL", help="Ask a running service instead: http://host:port, or the probe's address."
)
@click.option("--token", metavar="TOKEN", help="Sent to the service; HEALTH_TOKEN if not given.")
@click.option("--timeout", default=10.0, show_default=True, help="Seconds to wait for a running service.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--watch", is_flag=True, help="Ask again every two seconds until Ctrl-C.")
@click.pass_context
def health(
    ctx: click.Context, url: str | None, token: str | None, timeout: float, as_json: bool, watch: bool
) -> None:
    """Ask every check, here or in a running service.

    Exits with 0 when all is healthy, with 1 when it is degraded or unhealthy, or cannot be asked. A running
    service tells details only to those who send its HEALTH_TOKEN. --watch redraws a terminal; elsewhere it prints
    a line whenever something changes.

    \b
    Examples:
      flask prod health
      flask prod health --json | jq .checks.redis
      flask prod health --url http://127.0.0.1:8000 --watch
      HEALTH_TOKEN_FILE=/run/secrets/health flask prod health --url https://shop.example.com
    """

    def look() -> dict[str, Any]:
        return _of_this_process(ctx) if url is None else _of_a_service(url, token, timeout)

    if watch:
        follow(look, as_json)
        return
    found = look()
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        click.echo("\n".join(page(found)))
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
        token = next(iter(tokens_of(peek(sources, HealthSettings, "token"))), "")
    return ask(url, peek(sources, HealthSettings, "path"), token, timeout)


def page(found: Mapping[str, Any]) -> list[str]:
    """Return the lines of one report."""
    who = " ".join(str(found[key]) for key in ("service", "version", "environment") if found.get(key))
    head = coloured(str(found["status"])) + (f"  {printable(who)}" if who else "")
    checks = found.get("checks")
    if checks is None:
        return [head, "The service tells no details without its HEALTH_TOKEN."]
    if not checks:
        return [head, "There are no checks."]
    rows = [_row(name, check) for name, check in checks.items()]
    return [head, *lines(("CHECK", "STATUS", "LATENCY", "SINCE", "DETAIL"), rows)]


def follow(look: Callable[[], dict[str, Any]], as_json: bool) -> None:
    """Show what *look* finds, again and again until Ctrl-C: in place on a terminal, else a line per change."""
    shown: object = None
    terminal = sys.stdout.isatty() and not as_json
    with suppress(KeyboardInterrupt, BrokenPipeError):
        while True:
            found = _look(look)
            if terminal:
                now = datetime.now(UTC).strftime("%H:%M:%S UTC")
                text = "\n".join([*page(found), "", f"{now}  every {EVERY:g} s, Ctrl-C ends"])
                click.echo(_CLEAR + text)
            elif _told(found) != shown:
                shown = _told(found)
                click.echo(json.dumps(found) if as_json else _line(found))
            time.sleep(EVERY)


def _look(look: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return look()
    except click.ClickException as error:  # a service that restarts is worth waiting for
        return {"status": "unreachable", "checks": {"service": {"status": "fail", "detail": error.message}}}


def _told(found: Mapping[str, Any]) -> object:
    """Return what makes a line of its own when it changes."""
    checks = found.get("checks") or {}
    return found.get("status"), [(name, check.get("status")) for name, check in checks.items()]


def _line(found: Mapping[str, Any]) -> str:
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    checks = found.get("checks") or {}
    words = [
        f"{name} {check.get('status')} ({check.get('detail', '')})"
        for name, check in checks.items()
        if check.get("status") != "ok"
    ]
    return printable(" ".join([now, str(found["status"]), "; ".join(words)]).rstrip())


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
