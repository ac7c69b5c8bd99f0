"""Install the jobs room: an engine, a check, a command; no worker lives in a web process."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from flask import Flask

from flask_prod.core.component import Check, Component, Contribution, Finding, Installed, Periodic
from flask_prod.core.later import Later
from flask_prod.core.run_dir import Leader, run_dir

from .backend import CLUSTERED, Backend, choose_backend
from .cli import jobs_command
from .commands.outbox import outbox_command
from .face import JobsFace
from .settings import JobsSettings
from .tasks.task import Tasks

if TYPE_CHECKING:
    from .engine import Engine

logger = logging.getLogger(__name__)


class Jobs(Component[JobsSettings, "Engine | Later"]):
    """Run functions in worker processes; RQ is imported where there are jobs and a Redis to keep them."""

    name = "jobs"
    requires = ("redis",)
    settings = JobsSettings

    def __init__(self) -> None:
        # One allow-list per kit: jobs are registered when modules are imported, before any application exists.
        self._tasks = Tasks()

    def face(self) -> JobsFace:
        """Build `prod.jobs`."""
        return JobsFace(self._tasks)

    def install(self, app: Flask, settings: JobsSettings, kit: Installed) -> Contribution[Engine | Later]:
        """Build the engine if there are jobs already, else with the first use; nothing connects before."""
        backend = choose_backend(settings, kit, bool(self._tasks.by_name))

        def build() -> Engine:
            from .engine import Engine

            return Engine(app, backend, self._tasks, kit)

        def needed() -> bool:
            return backend.usable and bool(self._tasks.by_name)

        later = Later(build)

        def start() -> None:
            if needed():
                engine = later.build()
                engine.counts.show(engine.tasks)
                backend.start()
            elif self._tasks.by_name and backend.clustered:
                logger.error(CLUSTERED)  # they were registered after init_app, too late to refuse them

        leader = Leader(run_dir(kit.service, app.root_path), "jobs-watch")

        def watch() -> None:
            if needed() and backend.kind in ("redis", "database") and leader.leads():
                later.build().watch()

        def after_fork() -> None:
            leader.resign()
            later.after_fork()
            backend.after_fork()

        engine: Engine | Later = later.build() if needed() else later
        group = jobs_command(engine, backend)
        if backend.outboxed:
            group.add_command(outbox_command(backend.outbox))
        return Contribution(
            handle=engine,
            checks=(
                Check("jobs", lambda: self._look(engine, backend), critical=False, timeout=0.5),
                *backend.checks(),
            ),
            commands=(group,),
            # Jobs may have been registered since; the first request that dispatches one need not import RQ.
            start=start,
            periodic=(Periodic("jobs watch", 10.0, watch),),
            after_fork=after_fork,
            close=backend.close,
        )

    def _look(self, engine: Engine | Later, backend: Backend) -> Finding:
        """Warn when jobs wait and nobody comes for them."""
        if backend.kind in ("memory", "eager"):
            return Finding(detail="Jobs are in the memory of this process.")
        if not self._tasks.by_name and (backend.kind == "database" or not backend.usable):
            return Finding(detail="No job is registered.")
        if not backend.usable:
            return Finding(
                "warn", CLUSTERED if backend.clustered else "Jobs cannot be dispatched without a REDIS_URL."
            )

        from .operations.watch import finding

        return finding(engine)
