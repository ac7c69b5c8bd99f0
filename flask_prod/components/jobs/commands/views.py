"""Commands of `flask prod jobs` that look: list, show, dead, stats, schedule."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec

if TYPE_CHECKING:
    from flask_prod.core.later import Later

    from ..engine import Engine

Guard = Callable[[Callable[[], Any]], Any]

_STATES = ("waiting", "scheduled", "deferred", "running", "dead", "finished", "canceled")

_LEFT_OUT = ("arguments", "result", "reason", "waits_for", "tags", "message", "worker", "progress")
"""Fields of a job that are shown only when they hold something."""


def view_commands(engine: Engine | Later, guard: Guard) -> Sequence[click.Command]:
    """Return the commands for one application."""
    return (
        _list(engine, guard),
        _dead(engine, guard),
        _show(engine, guard),
        _stats(engine, guard),
        _schedule(engine, guard),
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Container[int] = ()) -> str:
    """Return rows under their columns, as wide as their longest cell."""
    everything = [columns, *rows]
    widths = [max(len(row[place]) for row in everything) for place in range(len(columns))]
    return "\n".join(
        "  ".join(
            cell.rjust(widths[place]) if place in right else cell.ljust(widths[place])
            for place, cell in enumerate(row)
        ).rstrip()
        for row in everything
    )


def _list(engine: Engine | Later, guard: Guard) -> click.Command:
    @click.command("list", short_help="List jobs of one state.")
    @click.option("--state", type=click.Choice(_STATES), default="waiting", help="Which jobs; waiting otherwise.")
    @click.option("--queue", "queues", multiple=True, help="Only this queue; may be given several times.")
    @click.option("--tag", default="", help="Only jobs with this tag.")
    @click.option("--count", type=click.IntRange(1, 1000), default=50, help="So many at most; 50 otherwise.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
    def command(state: str, queues: tuple[str, ...], tag: str, count: int, as_json: bool) -> None:
        """List jobs of one state, the oldest first."""
        views = guard(lambda: engine.office.listing(state, queues, count, tag))
        if as_json:
            click.echo(msgspec.json.encode(views).decode())
            return
        rows = [(one.id, one.queue, one.job, _moment(one), _note(one)) for one in views]
        click.echo(table(("id", "queue", "job", "since", ""), rows) if rows else f"No job is {state}.")

    return command


def _dead(engine: Engine | Later, guard: Guard) -> click.Command:
    @click.command("dead", short_help="List dead jobs and why they failed.")
    @click.option("--queue", "queues", multiple=True, help="Only this queue; may be given several times.")
    @click.option("--count", type=click.IntRange(1, 1000), default=50, help="So many at most; 50 otherwise.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
    def command(queues: tuple[str, ...], count: int, as_json: bool) -> None:
        """List dead jobs; `show` has the traceback, `requeue` lets one run again."""
        views = guard(lambda: engine.office.listing("dead", queues, count))
        if as_json:
            click.echo(msgspec.json.encode(views).decode())
            return
        rows = [(one.id, one.queue, one.job, one.ended, one.reason[:120]) for one in views]
        click.echo(table(("id", "queue", "job", "died", "reason"), rows) if rows else "No job is dead.")

    return command


def _show(engine: Engine | Later, guard: Guard) -> click.Command:
    @click.command("show", short_help="Show one job.")
    @click.argument("job_id", metavar="ID")
    @click.option("--arguments", is_flag=True, help="Show its arguments too; they may be personal.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
    def command(job_id: str, arguments: bool, as_json: bool) -> None:
        """Show one job: where it stands, its progress, its result, or why it failed."""
        shown = guard(lambda: engine.office.show(job_id, arguments))
        if as_json:
            click.echo(msgspec.json.encode(shown).decode())
            return
        facts = msgspec.to_builtins(shown)
        facts["progress"] = None if shown.progress is None else f"{shown.progress:.0%} {shown.message}".strip()
        facts["message"] = ""
        for name, value in facts.items():
            if value or (value == 0 and name not in _LEFT_OUT):
                words = ", ".join(value) if isinstance(value, list) else str(value)
                click.echo(f"{name.replace('_', ' ') + ':':14}{_indented(words)}")

    return command


def _stats(engine: Engine | Later, guard: Guard) -> click.Command:
    @click.command("stats", short_help="Show workers and what they have done.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
    def command(as_json: bool) -> None:
        """Show each living worker process: what it does, and how many jobs it has ended."""
        workers = guard(lambda: engine.office.workers())
        if as_json:
            click.echo(msgspec.json.encode(workers).decode())
            return
        rows = [
            (one.name, one.state, one.queues, str(one.done), str(one.failed), f"{one.busy:.1f}") for one in workers
        ]
        columns = ("worker", "state", "queues", "done", "failed", "seconds")
        click.echo(
            table(columns, rows, right=(3, 4, 5)) if rows else "No worker lives: start `flask prod worker`."
        )

    return command


def _schedule(engine: Engine | Later, guard: Guard) -> click.Command:
    @click.command("schedule", short_help="Show schedules: last and next runs.")
    @click.option("--next", "count", type=click.IntRange(1, 20), default=1, help="So many next runs; 1 otherwise.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
    def command(count: int, as_json: bool) -> None:
        """Show what runs by the clock: the schedule, its last and next runs, and how the last one stands."""

        def look() -> Any:
            from ..schedule.clock import schedule_states

            return schedule_states(engine, count)

        states = guard(look)
        if as_json:
            click.echo(msgspec.json.encode(states).decode())
            return
        rows = [(one.name, one.schedule, one.last, ", ".join(one.next), one.state) for one in states]
        columns = ("name", "schedule", "last", "next", "state")
        click.echo(table(columns, rows) if rows else "No job has a schedule: see @prod.cron and @prod.every.")

    return command


def _moment(one: Any) -> str:
    moment: str = one.ended or one.started or one.enqueued or one.created
    return moment


def _note(one: Any) -> str:
    """Return what is worth a word in a list: progress, tags, what it waits for, why it failed."""
    progress = "" if one.progress is None else f"{one.progress:.0%} {one.message}".strip()
    waits = f"after {', '.join(one.waits_for)}" if one.status == "deferred" else ""
    reason = one.reason[:120] if one.status == "failed" else ""
    return " ".join(part for part in (progress, waits, " ".join(f"#{tag}" for tag in one.tags), reason) if part)


def _indented(words: str) -> str:
    lines = words.rstrip().splitlines()
    return lines[0] if len(lines) == 1 else "\n  " + "\n  ".join(lines) if lines else ""
