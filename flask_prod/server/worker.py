"""`flask prod worker`: one worker process or several, each with the application loaded once, before it forks.

One process serves all its queues, the most urgent first. The first SIGTERM or SIGINT lets the running job end, the
second, or the end of SHUTDOWN_SECONDS, puts it back to its queue; either way the exit code is 0.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

import click
from flask.cli import ScriptInfo

from flask_prod.core.errors import NotInstalled
from flask_prod.core.kit import state_of

if TYPE_CHECKING:
    from flask import Flask

    from flask_prod.components.jobs.engine import Engine
    from flask_prod.components.jobs.worker import AppWorker

logger = logging.getLogger(__name__)

_MARGIN = 5.0
"""Seconds of the stop that are kept for putting a job back and closing connections."""

_PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds before a worker that ended on its own is started again, longer each time."""

_STEADY = 60.0
"""A worker that ran for so many seconds before it ended counts as one that never failed."""

_HELP = """Run background jobs.

Serves the queues of JOBS_QUEUES, or else each queue that a registered job names. One process takes jobs from all
its queues, the first-named first. Scheduled jobs and retries need no other process.

SIGTERM and Ctrl-C let the running job end; a second one, or the end of SHUTDOWN_SECONDS, puts it back.

\b
Examples:
  flask prod worker
  flask prod worker --queues high,default --processes 4
  flask prod worker --burst        (until the queues are empty)
"""


@click.command("worker", help=_HELP, short_help="Run background jobs.")
@click.option("--queues", help="Queues to serve, comma-separated, the most urgent first.")
@click.option("--processes", type=click.IntRange(1, 64), help="Worker processes; JOBS_WORKERS otherwise.")
@click.option("--burst", is_flag=True, help="End when the queues are empty.")
@click.option("--name", help="Begin the worker's name in Redis with this.")
@click.pass_context
def worker(
    context: click.Context, queues: str | None, processes: int | None, burst: bool, name: str | None
) -> None:
    """Load the application, then work."""
    app = context.ensure_object(ScriptInfo).load_app()
    engine = _engine(app)
    chosen = _queues(engine, queues)
    count = processes or engine.settings.workers
    grace = state_of(app).service.shutdown_seconds
    _log_somewhere()
    _count_with_the_web(app)

    def work() -> int:
        return Runner(engine, chosen, name, burst, grace).run()

    code = work() if count == 1 else Supervisor(count, work, burst, grace).run()
    state_of(app).lifecycle.close()
    sys.exit(code)


class Runner:
    """One worker process: builds a worker, builds another when Redis took it down, ends when told to."""

    def __init__(self, engine: Engine, queues: Sequence[str], name: str | None, burst: bool, grace: float) -> None:
        self._engine = engine
        self._queues = queues
        self._name = name
        self._burst = burst
        self._grace = grace
        self._worker: AppWorker | None = None
        self._stopping = False

    def run(self) -> int:
        """Work until told to stop; return the exit code."""
        listen(self._on_signal)
        logger.info("Worker %s serves %s", os.getpid(), ", ".join(self._queues))
        attempt = 0
        while not self._stopping:
            began = time.monotonic()
            if self._work() and (self._burst or self._stopping):
                break
            attempt = 0 if time.monotonic() - began > _STEADY else attempt + 1
            self._pause(_PAUSES[min(attempt, len(_PAUSES)) - 1])
        logger.info("Worker %s has stopped", os.getpid())
        return 0

    def _work(self) -> bool:
        """Build a worker and let it work; false when Redis was away before or after."""
        import redis

        from flask_prod.components.jobs.worker import AppWorker, worker_name

        try:
            self._worker = AppWorker(self._engine, self._queues, self._name or worker_name(self._engine))
            if self._stopping:
                self._worker.request_stop()
            # RQ's own lines would be five for each job; ours is one.
            self._worker.work(burst=self._burst, logging_level="WARNING")
        except (redis.RedisError, OSError) as error:
            logger.warning("The worker cannot work without Redis (%s); it tries again", type(error).__name__)
            return False
        except SystemExit:
            return True  # a cold stop
        return True

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stopping and time.monotonic() < end:
            time.sleep(0.1)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        first, self._stopping = not self._stopping, True
        if first:
            self._limit()
        if self._worker is None:
            return
        if first:
            self._worker.request_stop(number, frame)
        else:
            self._worker.request_force_stop(number, frame)

    def _limit(self) -> None:
        """See to it that the stop comes to an end: a job is put back in time, and a hang ends the process."""
        soft = max(self._grace - _MARGIN, self._grace / 2, 1.1)
        _later(soft, os.kill, os.getpid(), signal.SIGTERM)
        _later(max(self._grace, soft + 1), os._exit, 1)


class Supervisor:
    """Several worker processes: a child that ends on its own is replaced, a stop reaches all."""

    def __init__(self, count: int, work: Callable[[], int], burst: bool, grace: float) -> None:
        self._count = count
        self._work = work
        self._burst = burst
        self._grace = grace
        self._began: dict[int, float] = {}
        self._stops = 0

    def run(self) -> int:
        """Keep the workers running until told to stop; return the exit code."""
        listen(self._on_signal)
        for _ in range(self._count):
            self._fork()
        failures = 0
        while self._began:
            pid, status = os.wait()
            began = self._began.pop(pid, None)
            if began is None or self._stops or (self._burst and status == 0):
                continue
            failures = 1 if time.monotonic() - began > _STEADY else failures + 1
            pause = _PAUSES[min(failures, len(_PAUSES)) - 1]
            logger.warning("Worker %s ended (%s); another starts in %s s", pid, _how(status), pause)
            self._pause(pause)
            if not self._stops:
                self._fork()
        return 0

    def _fork(self) -> None:
        parent = os.getpid()
        # No signal may arrive between the birth of a child and its name in the list.
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
        pid = os.fork()
        if pid:
            self._began[pid] = time.monotonic()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
            return
        os._exit(self._live(parent))

    def _live(self, parent: int) -> int:
        """Be a worker; whatever happens, do not return into the parent's code."""
        from flask_prod.components.jobs.processes import die_with_parent

        try:
            listen(lambda *_: os._exit(0))
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
            die_with_parent(signal.SIGTERM, parent)
            return self._work()
        except BaseException:
            logger.exception("Worker %s crashed", os.getpid())
            return 1

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stops and time.monotonic() < end:
            time.sleep(0.1)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stops += 1
        if self._stops == 1:
            # The children keep the same time; this is for one that does not.
            _later(self._grace + 2, self._kill, signal.SIGKILL)
        self._kill(signal.SIGTERM)

    def _kill(self, number: signal.Signals) -> None:
        for pid in tuple(self._began):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue


_STOPS = (signal.SIGTERM, signal.SIGINT)


def listen(handler: Callable[[int, FrameType | None], Any]) -> None:
    """Call *handler* for each signal that asks to stop."""
    for number in _STOPS:
        signal.signal(number, handler)


def _engine(app: Flask) -> Engine:
    contribution = state_of(app).contributions.get("jobs")
    if contribution is None:
        raise NotInstalled("jobs is left out of this application's kit, so there is nothing to work on.")
    engine: Engine = contribution.handle
    if not engine.redis.configured:
        raise click.ClickException(
            "A worker needs a Redis: set REDIS_URL to redis://host:6379/0, or run `flask prod up`."
        )
    return engine


def _count_with_the_web(app: Flask) -> None:
    """Let what jobs count be seen by whoever scrapes the web processes on this host."""
    contribution = state_of(app).contributions.get("metrics")
    if contribution is not None:
        contribution.handle.join()


def _queues(engine: Engine, given: str | None) -> tuple[str, ...]:
    if given is None:
        return engine.queues()
    names = tuple(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))
    if not names:
        raise click.BadParameter("name at least one queue", param_hint="--queues")
    return names


def _log_somewhere() -> None:
    """Show the worker's lines where the application has not said where its logs go."""
    if not logging.getLogger().handlers:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


def _later(seconds: float, call: Callable[..., Any], *args: Any) -> None:
    timer = threading.Timer(seconds, call, args)
    timer.daemon = True
    timer.start()


def _how(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exit code {os.waitstatus_to_exitcode(status)}"
