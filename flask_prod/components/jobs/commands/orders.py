"""Commands of `flask prod jobs` that change something: requeue, delete, cancel, pause, resume, restart, ping."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from flask_prod.core.errors import Unavailable

if TYPE_CHECKING:
    from flask_prod.core.later import Later

    from ..engine import Engine

Guard = Callable[[Callable[[], Any]], Any]


def order_commands(engine: Engine | Later, guard: Guard, anywhere: Guard) -> Sequence[click.Command]:
    """Return the commands for one application; those that go without Redis are guarded by *anywhere*."""
    return (
        _of_dead(engine, guard, "requeue", "Let dead jobs run again, with all their attempts.", "runs again"),
        _of_dead(engine, guard, "delete", "Forget jobs and their results.", "is deleted"),
        _cancel(engine, guard),
        _of_queues(
            engine, guard, "pause", "Let workers take nothing from these queues; what runs ends.", "paused"
        ),
        _of_queues(engine, guard, "resume", "Let workers take jobs from these queues again.", "resumed"),
        _restart(engine, guard),
        _ping(engine, anywhere),
    )


def _of_dead(engine: Engine | Later, guard: Guard, name: str, words: str, done: str) -> click.Command:
    @click.command(name, help=words, short_help=words)
    @click.argument("job_ids", metavar="[ID]...", nargs=-1)
    @click.option("--all", "everything", is_flag=True, help="All dead jobs.")
    @click.option("--queue", "queues", multiple=True, help="With --all: only of this queue.")
    def command(job_ids: tuple[str, ...], everything: bool, queues: tuple[str, ...]) -> None:
        if bool(job_ids) == everything or (queues and not everything):
            raise click.UsageError("Name jobs by their ids, or give --all, with --queue if you like.")
        ids = guard(lambda: engine.office.dead_ids(queues)) if everything else job_ids

        def act(job_id: str) -> str:
            if everything and engine.office.drop_lost(job_id):
                return f"{job_id} is gone, and nothing is left of it"
            getattr(engine.office, name)(job_id)
            return f"{job_id} {done}"

        _each(ids, guard, act)
        if not ids:
            click.echo("No job is dead.")

    return command


def _cancel(engine: Engine | Later, guard: Guard) -> click.Command:
    @click.command("cancel", short_help="Let jobs not run, or stop them where they run.")
    @click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
    def command(job_ids: tuple[str, ...]) -> None:
        """Let jobs not run; one that runs is stopped within about a second, by the end of its process."""

        def act(job_id: str) -> str:
            was = engine.office.cancel(job_id)
            return f"{job_id} {'is being stopped' if was == 'started' else f'is canceled; it was {was}'}"

        _each(job_ids, guard, act)

    return command


def _each(job_ids: Sequence[str], guard: Guard, act: Callable[[str], str]) -> None:
    """Deal with each job; one that refuses is told of, makes the exit code 1, and holds up no other."""
    refused = 0
    for job_id in job_ids:
        try:
            click.echo(guard(partial(act, job_id)))
        except click.ClickException as error:
            if isinstance(error.__cause__, Unavailable):
                raise
            error.show()
            refused += 1
    if refused:
        raise click.exceptions.Exit(1)


def _of_queues(engine: Engine | Later, guard: Guard, name: str, words: str, done: str) -> click.Command:
    @click.command(name, help=words, short_help=words)
    @click.argument("queues", metavar="QUEUE...", nargs=-1, required=True)
    def command(queues: tuple[str, ...]) -> None:
        guard(lambda: getattr(engine.office, name)(queues))
        for queue in queues:
            click.echo(f"{queue} is {done}")

    return command


def _restart(engine: Engine | Later, guard: Guard) -> click.Command:
    @click.command("restart", short_help="Let all workers begin anew, with new code.")
    def command() -> None:
        """Let all workers of this service begin anew, each after its running jobs; new code is loaded."""
        guard(lambda: engine.office.restart())
        click.echo("Workers restart within about a second, each after the jobs it runs.")

    return command


def _ping(engine: Engine | Later, guard: Guard) -> click.Command:
    @click.command("ping", short_help="Send a job that does nothing to each queue, and wait for it.")
    @click.option("--queue", "queues", multiple=True, help="Only this queue; may be given several times.")
    @click.option("--timeout", default=15.0, show_default=True, help="Seconds to wait.")
    def command(queues: tuple[str, ...], timeout: float) -> None:
        """Send a job that does nothing to the front of each queue that is served, and wait for it to be done.

        It goes by way of the outbox where there is one. Exits with 1 when no worker has done it in time.
        """
        from ..operations.ping import ping_queues

        for queue, seconds in guard(lambda: ping_queues(engine, timeout, queues)).items():
            click.echo(f"{queue} in {seconds:.2f} s")

    return command
