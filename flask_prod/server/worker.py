"""`flask prod worker`: loads the application once, then forks long-lived worker processes below one supervisor.

The first SIGTERM or SIGINT lets the running jobs end, the second, or the end of SHUTDOWN_SECONDS, puts them back
to their queues; either way the exit code is 0.
"""

from __future__ import annotations

import gc
import logging
import os
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
from flask.cli import ScriptInfo

from flask_prod.core.closing import closing_seconds
from flask_prod.core.errors import NotInstalled
from flask_prod.core.kit import state_of
from flask_prod.core.values import parse_duration, parse_size

if TYPE_CHECKING:
    from flask import Flask

    from flask_prod.components.jobs.delivery.processes import Board, Slot
    from flask_prod.components.jobs.delivery.worker import Limits
    from flask_prod.components.jobs.engine import Engine
    from flask_prod.components.metrics.face import AppMetrics
    from flask_prod.core.kit import KitState

logger = logging.getLogger(__name__)

_MOST_QUEUES = 64

_HELP = """Run background jobs.

Serves the queues of JOBS_QUEUES, or else each queue that a registered job names. The first-named queue comes first
as long as it has jobs; with weights (high:3,default:1) each gets its share. Processes live long: a job that kills
its process costs its own attempt only. Scheduled jobs and retries need no other process.

SIGTERM and Ctrl-C let the running jobs end; a second one, or the end of SHUTDOWN_SECONDS, puts them back.

\b
Examples:
  flask prod worker
  flask prod worker --queues high,default --processes 4
  flask prod worker --queues high:3,default:1 --memory-limit 512MB --max-jobs 1000
  flask prod worker --isolate      (a process for each job)
  flask prod worker --burst        (until the queues are empty)
"""


class _Size(click.ParamType[int]):
    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return parse_size(value)
        except ValueError:
            self.fail(f"{value!r} is no size; write 512MB or 1GB", param, ctx)


class _Span(click.ParamType[float]):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return parse_duration(value)
        except ValueError:
            self.fail(f"{value!r} is no duration; write 30s, 5m or 1h", param, ctx)


@dataclass(frozen=True, slots=True)
class _Asked:
    """The options of the command; None for what the settings say."""

    queues: str | None
    processes: int | None
    name: str | None
    memory_limit: int | None
    max_jobs: int | None
    max_age: float | None
    burst: bool
    isolate: bool


@click.command("worker", help=_HELP, short_help="Run background jobs.")
@click.option("--queues", help="Queues to serve, comma-separated, the most urgent first, or with weights.")
@click.option("--processes", type=click.IntRange(1, 64), help="Worker processes; JOBS_WORKERS otherwise.")
@click.option(
    "--memory-limit", type=_Size(), help="Replace a process that holds more; JOBS_MEMORY_LIMIT otherwise."
)
@click.option("--max-jobs", type=click.IntRange(0), help="Replace a process after so many jobs.")
@click.option("--max-age", type=_Span(), help="Replace a process after so long.")
@click.option("--isolate", is_flag=True, help="Run each job in a process of its own, as `rq worker` does.")
@click.option("--burst", is_flag=True, help="End when the queues are empty.")
@click.option("--name", help="Begin the workers' names in Redis with this.")
@click.option("--check", is_flag=True, hidden=True, help="Load the application, and end.")
@click.pass_context
def worker(context: click.Context, /, check: bool, **options: Any) -> None:
    """Load the application, then work."""
    app = context.ensure_object(ScriptInfo).load_app()
    engine = _engine(app)
    if check:
        return
    _log_somewhere()
    _count_where_it_is_seen(state_of(app), engine.settings.worker_port > 0)
    sys.exit(_work(app, engine, _Asked(**options)))


def _work(app: Flask, engine: Engine, asked: _Asked) -> int:
    """Run the supervisor to its end; return the exit code."""
    from flask_prod.components.jobs.delivery.worker import Worker, worker_name
    from flask_prod.components.jobs.schedule.clock import Clock

    from .crew import Crew
    from .lookout import answering

    state = state_of(app)
    weights = _weights(engine, asked.queues)
    limits = _limits(engine, asked)
    name = asked.name or worker_name(engine, socket.gethostname())

    closing = closing_seconds(state.service.shutdown_seconds)

    def work(board: Board, slot: Slot, token: str, own_name: str) -> int:
        state.lifecycle.start()
        source = engine.backend.source(engine, own_name, tuple(weights))
        try:
            return Worker(engine, source, weights, board, slot, token).run(asked.burst, limits)
        finally:
            state.lifecycle.close(closing)

    if engine.traces is not None:
        engine.traces.load()  # the children share what is imported now
    gc.collect()
    gc.freeze()
    source = engine.backend.source(engine, name, tuple(weights))
    crew = Crew(source, tuple(weights), work, name, asked.processes or engine.settings.workers)
    crew.trial = _try
    if engine.settings.worker_port:
        crew.keep_beside(answering(state, (engine.settings.worker_bind, engine.settings.worker_port)))
    logger.info("Worker %s serves %s", os.getpid(), ", ".join(weights))
    clock = Clock(engine)
    crew.aside = clock.tick
    code = crew.run(engine.heartbeat, state.service.shutdown_seconds, asked.burst)
    clock.close()
    logger.info("Worker %s has stopped", os.getpid())
    state.lifecycle.close(closing)
    if crew.lookout is not None:
        crew.lookout.end()  # the last of all: until now it says that this worker stops
    if crew.restarting:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  # the same command again
    return code


def _try() -> int:
    """Start a process that loads the application as this command does, and ends; return its id."""
    command = [sys.executable, *sys.orig_argv[1:], "--check"]
    return os.posix_spawn(sys.executable, command, os.environ)


def _engine(app: Flask) -> Engine:
    contribution = state_of(app).contributions.get("jobs")
    if contribution is None:
        raise NotInstalled("jobs is left out of this application's kit, so there is nothing to work on.")
    from flask_prod.components.jobs.backend import CLUSTERED

    build = getattr(contribution.handle, "build", None)
    engine: Engine = build() if build is not None else contribution.handle
    if engine.backend.clustered:
        raise click.ClickException(CLUSTERED)
    if not engine.backend.usable:
        raise click.ClickException(
            "A worker needs a Redis: set REDIS_URL to redis://host:6379/0, or run `flask prod up`; or a database: "
            "set JOBS_OUTBOX."
        )
    return engine


def _limits(engine: Engine, asked: _Asked) -> Limits:
    from flask_prod.components.jobs.delivery.worker import Limits

    settings = engine.settings
    return Limits(
        1 if asked.isolate else settings.max_jobs if asked.max_jobs is None else asked.max_jobs,
        settings.max_age if asked.max_age is None else asked.max_age,
        settings.memory_limit if asked.memory_limit is None else asked.memory_limit,
    )


def _weights(engine: Engine, given: str | None) -> dict[str, int]:
    from flask_prod.components.jobs.settings import weights_of

    if given is None:
        weights = dict(engine.weights())
    else:
        try:
            weights = weights_of(name.strip() for name in given.split(",") if name.strip())
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--queues") from error
    if not 1 <= len(weights) <= _MOST_QUEUES:
        raise click.BadParameter(f"name from one to {_MOST_QUEUES} queues", param_hint="--queues")
    return weights


def _count_where_it_is_seen(state: KitState, own: bool) -> None:
    """Let what jobs count be seen: on this worker's own port, else with the web processes of this host."""
    from .multiprocess import VARIABLE, new_folder

    contribution = state.contributions.get("metrics")
    if contribution is None:
        return
    metrics: AppMetrics = contribution.handle
    if not own:
        metrics.join()
        return
    folder = None if VARIABLE in os.environ else new_folder()
    if folder is not None:
        metrics.keep_in(folder)
    elif VARIABLE not in os.environ:
        logger.warning("Metrics of jobs are not shown: mount a writable /dev/shm or /tmp, or set %s.", VARIABLE)


def _log_somewhere() -> None:
    """Show the worker's lines where the application has not said where its logs go."""
    if not logging.getLogger().handlers:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
