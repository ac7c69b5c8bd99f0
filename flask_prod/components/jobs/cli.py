"""`flask prod jobs`: the queues as a table, once or again and again, and the commands below it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec

from flask_prod.core.errors import ProdKitError

from .backend import CLUSTERED, Backend
from .commands.orders import order_commands
from .commands.views import table, view_commands

if TYPE_CHECKING:
    from flask_prod.core.later import Later

    from .engine import Engine

_HELP = """Show the queues: jobs waiting, scheduled, running and dead, the age of the oldest, and living workers.

Counts only; it changes nothing in Redis. Exits with 1 when Redis cannot be reached.

\b
Examples:
  flask prod jobs
  flask prod jobs --watch            (again every 2 seconds, until Ctrl-C)
  flask prod jobs --json
  flask prod jobs dead               (why they failed)
  flask prod jobs show ID            (one job: progress, result, traceback)
"""

_COLUMNS = ("queue", "waiting", "oldest", "scheduled", "deferred", "running", "failed", "workers", "")


def jobs_command(engine: Engine | Later, backend: Backend) -> click.Group:
    """Return the group for one application; later commands about jobs go below it."""

    @click.group("jobs", help=_HELP, invoke_without_command=True, short_help="Show and steer background jobs.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
    @click.option("--watch", is_flag=True, help="Show it again and again, until Ctrl-C.")
    @click.option(
        "--interval", type=click.FloatRange(0.2, 3600), default=2.0, help="Seconds between two looks; 2 otherwise."
    )
    @click.pass_context
    def jobs(context: click.Context, as_json: bool, watch: bool, interval: float) -> None:
        if context.invoked_subcommand is not None:
            return
        if watch:
            _watch(lambda: _shown(engine, as_json), interval, clear=not as_json)
            return
        click.echo(anywhere(lambda: _shown(engine, as_json)))

    def guarded(call: Callable[[], Any]) -> Any:
        if backend.kind == "database":
            raise click.ClickException(
                "Jobs lie in the database, and this needs a Redis; `flask prod jobs` and `flask prod jobs outbox` "
                "show them, and `flask prod jobs outbox requeue` lets dead ones run again."
            )
        return anywhere(call)

    def anywhere(call: Callable[[], Any]) -> Any:
        return answer(backend, call)

    for command in (*view_commands(engine, guarded), *order_commands(engine, guarded, anywhere)):
        jobs.add_command(command)
    return jobs


def answer(backend: Backend, call: Callable[[], Any]) -> Any:
    """Return what *call* does; a refusal is shown as its text alone, with exit code 1."""
    if backend.kind in ("memory", "eager"):
        raise click.ClickException(
            "Jobs are in the memory of the process that dispatches them; nobody else sees any."
        )
    if not backend.usable:
        raise click.ClickException(
            CLUSTERED if backend.clustered else "There is no REDIS_URL, so there are no queues."
        )
    try:
        return call()
    except (ProdKitError, ValueError, LookupError) as error:
        raise click.ClickException(str(error)) from error
    except Exception as error:
        if type(error).__name__ == "NoSuchJobError":  # of RQ, which need not be imported for this
            raise click.ClickException(str(error)) from error
        raise


def _shown(engine: Engine | Later, as_json: bool) -> str:
    states = engine.overview()
    if as_json:
        return msgspec.json.encode(states).decode()
    rows: list[Sequence[str]] = [
        (
            state.queue, str(state.waiting), span(state.oldest), str(state.scheduled), str(state.deferred),
            str(state.running), str(state.failed), str(state.workers), "paused" if state.paused else "",
        )
        for state in states
    ]  # fmt: skip
    return table(_COLUMNS, rows, right=range(1, 8)) + "".join(_held(engine))


def _held(engine: Engine | Later) -> Iterator[str]:
    """Yield a line for each limit that holds jobs back, of the ten that hold back most."""
    for limit in sorted(engine.limits(), key=lambda one: -one.held)[:10]:
        if limit.held:
            yield f"\nlimit {limit.key}: {limit.taken} of {limit.most} slots taken, {limit.held} jobs held back"


def span(seconds: float) -> str:
    """Return an age as people read it: 12s, 5m, 3h, 2d; nothing for none."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s" if seconds else ""


def _watch(look: Callable[[], str], interval: float, clear: bool) -> None:
    """Show the answer until Ctrl-C; while Redis is away, say so and go on."""
    try:
        while True:
            try:
                shown = look()
            except ProdKitError as error:
                shown = str(error)
            if clear:
                click.clear()
                click.echo(time.strftime("%H:%M:%S"))
            click.echo(shown)
            time.sleep(interval)
    except (KeyboardInterrupt, BrokenPipeError):
        return
