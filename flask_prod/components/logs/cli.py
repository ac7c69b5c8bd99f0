"""`flask prod log-level` and `flask prod trace`."""

from __future__ import annotations

import getpass
import logging
import os
import re
import socket
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from flask_prod.core.run_dir import Leader
from flask_prod.core.values import parse_duration

from .levels import LONGEST, Board, Change, Order, later
from .search import MOST, NotALog, Search, siblings
from .settings import LEVELS
from .story import draw

_LEVEL_HELP = """Show or change the level of a running service, for a while.

Every process of this host follows within a second: web workers at once, job workers with their next job. With a
Redis other hosts follow within ten seconds. When the time is over each goes back by itself.

\b
Examples:
  flask prod log-level                                   what is in force
  flask prod log-level debug --for 10m                   everything
  flask prod log-level info --logger sqlalchemy.engine   one logger and those below it
  flask prod log-level --reset                           as configured, now
"""

_TRACE_HELP = """Find what the log says of one request: its line, what code said during it, errors, its jobs.

ID is a request id (X-Request-ID, or `request_id` of an error page) or a trace id. Looks through LOG_OUTPUT and the
files that logrotate made of it, compressed ones too; or through FILE, or standard input if that is `-`. Exits with
1 when nothing is found.

\b
Examples:
  flask prod trace 3f9c0a...                        the last six hours
  flask prod trace 3f9c0a... --since 2d
  docker logs web | flask prod trace 3f9c0a... -
"""

_ID = re.compile(r"[A-Za-z0-9._-]{4,128}", re.ASCII)


def _span(longest: float) -> Callable[[click.Context, click.Parameter, str | None], float | None]:
    """Return what reads a length of time, such as 90s, 10m or 6h, up to *longest* seconds."""

    def read(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
        if value is None:
            return None
        try:
            seconds = parse_duration(value)
        except ValueError:
            raise click.BadParameter(f"{value!r} is not a time: write 90s, 10m or 6h.") from None
        if not 1 <= seconds <= longest:
            raise click.BadParameter(f"{value} is not between 1s and {longest / 3600:g}h.")
        return seconds

    return read


def level_command(board: Board, configured: int) -> click.Command:
    """Return the command for one application."""

    @click.command("log-level", help=_LEVEL_HELP, short_help="Show or change the log level for a while.")
    @click.argument("level", required=False)
    @click.option("--for", "seconds", callback=_span(LONGEST), default="10m", show_default=True, help="How long.")
    @click.option("--logger", "name", default="", help="One logger and those below it, instead of all.")
    @click.option("--reset", is_flag=True, help="Take back what is in force; with --logger, for that one.")
    def log_level(level: str | None, seconds: float, name: str, reset: bool) -> None:
        order = later((board.read(), board.read_shared()))
        now = time.time()
        if level is None and not reset:
            click.echo("\n".join(_in_force(order.valid(now), configured)))
            return
        if level is not None and reset:
            raise click.UsageError("Give a level or --reset, not both.")
        changed = _reset(order, name, now) if level is None else _changed(order, level, name, now, seconds)
        _publish(board, changed)
        click.echo("\n".join(_in_force(changed, configured)))

    return log_level


def trace_command(output: str) -> click.Command:
    """Return the command for an application that logs to *output*."""

    @click.command("trace", help=_TRACE_HELP, short_help="Find the log lines of one request.")
    @click.argument("wanted", metavar="ID")
    @click.argument("source", metavar="[FILE]", required=False)
    @click.option("--file", "files", multiple=True, help="The same as FILE; may be given several times.")
    @click.option("--since", callback=_span(366 * 86_400.0), help="How far back; 6h unless a FILE is given.")
    @click.option("--json", "raw", is_flag=True, help="Print the lines as they are, in order of time.")
    def trace(wanted: str, source: str | None, files: tuple[str, ...], since: float | None, raw: bool) -> None:
        if not _ID.fullmatch(wanted):
            raise click.BadParameter(f"{wanted!r} is no request id and no trace id.", param_hint="ID")
        given = (*files, source) if source else files
        search = Search(wanted, time.time() - since if since else 0.0)
        try:
            where = _look_in(search, given, output, since)
        except (OSError, NotALog) as error:
            raise click.ClickException(f"The log cannot be read: {error}") from error
        if not search.lines:
            raise click.ClickException(_nothing(search, where))
        if search.cut:
            click.echo(f"Only the first {MOST:,} lines are shown.", err=True)
        told = (line.raw.decode("utf-8", "replace") for line in search.in_order()) if raw else draw(search)
        click.echo("\n".join(told))

    return trace


def _look_in(search: Search, given: tuple[str, ...], output: str, since: float | None) -> str:
    """Search what was named, or the log file, and return its name for people."""
    if given:
        for name in given:
            if name == "-":
                search.read(sys.stdin.buffer)
            else:
                search.read_file(Path(name))
        return ", ".join("standard input" if name == "-" else name for name in given)
    if output in ("stdout", "stderr"):
        raise click.ClickException(
            f"LOG_OUTPUT is {output}, so the lines are with whatever reads that: pipe them in, such as "
            f"`docker logs CONTAINER 2>&1 | flask prod trace {search.wanted} -`, or name a file."
        )
    oldest = search.oldest = search.oldest or time.time() - 6 * 3600
    for path in siblings(Path(output), oldest):
        search.read_file(path)
    hours = (since or 6 * 3600) / 3600
    return f"{output} and what was rotated from it, {hours:g} h back (--since looks further)"


def _nothing(search: Search, where: str) -> str:
    hint = ""
    if search.others:
        hint = f" {search.others} lines have it without being JSON: LOG_FORMAT=console lines cannot be followed."
    elif search.older:
        hint = f" {search.older} older lines have it: give a longer --since."
    return f"Nothing about {search.wanted} in {where}.{hint}"


def _changed(order: Order, level: str, name: str, now: float, seconds: float) -> Order:
    if level.upper() not in LEVELS:
        raise click.BadParameter(f"{level!r} is none of {', '.join(LEVELS).lower()}.", param_hint="LEVEL")
    if len(name) > 200 or not name.isprintable():
        raise click.BadParameter("that is no name of a logger.", param_hint="--logger")
    change: Any = {"logger": name, "level": level.upper(), "at": now, "until": now + seconds, "by": _who()}
    return Order(now, order.valid(now).with_change(Change(**change)))


def _reset(order: Order, name: str, now: float) -> Order:
    kept = tuple(change for change in order.valid(now).changes if name and change.logger != name)
    return Order(now, kept)


def _publish(board: Board, order: Order) -> None:
    """Write the order wherever somebody looks, and say who will follow."""
    written = board.write(order)
    shared = board.write_shared(order)
    if written and board.path is not None:
        click.echo(f"Written to {board.path}: the processes of this host follow within a second.")
        if not _somebody_serves(board.path.parent):
            click.echo(
                "No web process of this service was found on this host, running as this user from this directory; "
                "set RUN_DIR to the same place for service and command if there should be one."
            )
    if shared:
        click.echo("Written to Redis: other hosts follow within ten seconds.")
    elif board.is_shared:
        click.echo("Redis cannot be reached: other hosts do not follow.", err=True)
    if not (written or shared):
        raise click.ClickException("There is nowhere to leave word: set RUN_DIR or REDIS_URL.")


def _somebody_serves(folder: Path) -> bool:
    """Tell whether some process holds the lock that one of the serving ones always holds."""
    leader = Leader(folder, "log-level")
    free = leader.leads()
    leader.resign()
    return not free


def _in_force(order: Order, configured: int) -> list[str]:
    base = logging.getLevelName(configured)
    rows = []
    if not any(not change.logger for change in order.changes):
        rows.append(f"All loggers: {base}, as configured (LOG_LEVEL).")
    for change in sorted(order.changes, key=lambda change: change.logger):
        until = datetime.fromtimestamp(change.until, UTC)
        left = max(0, round(change.until - time.time()))
        who = "Logger " + change.logger if change.logger else "All loggers"
        then = f", then {base} again" if not change.logger else ""
        span = f"{left // 60} min {left % 60} s" if left >= 60 else f"{left} s"
        rows.append(f"{who}: {change.level} until {until:%Y-%m-%d %H:%M:%S} UTC ({span}){then}; by {change.by}.")
    return rows


def _who() -> str:
    """Return who gives this command: the person behind sudo, if there is one."""
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    name = f"{user}@{socket.gethostname()}"[:200]
    return "".join(letter if letter.isprintable() else "?" for letter in name)
