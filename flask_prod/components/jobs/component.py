"""Install the jobs room: an engine, a check, a command; no worker lives in a web process."""

from __future__ import annotations

from typing import ClassVar

from flask import Flask

from flask_prod.core.component import Check, Component, Contribution, Finding, Installed
from flask_prod.core.errors import ConfigError

from .cli import jobs_command
from .engine import Engine
from .face import JobsFace, Tasks
from .settings import JobsSettings


class Jobs(Component[JobsSettings, Engine]):
    """Run functions in worker processes."""

    name = "jobs"
    requires = ("redis",)
    settings = JobsSettings
    _unserved: ClassVar[str] = "Jobs wait on {names}, and no worker serves it: start `flask prod worker`."

    def __init__(self) -> None:
        # One allow-list per kit: jobs are registered when modules are imported, before any application exists.
        self._tasks = Tasks()

    def face(self) -> JobsFace:
        """Build `prod.jobs`."""
        return JobsFace(self._tasks)

    def install(self, app: Flask, settings: JobsSettings, kit: Installed) -> Contribution[Engine]:
        """Build the engine; nothing connects before the first dispatch."""
        if "," in kit.service.namespace:
            raise ConfigError(["SERVICE_NAME must have no comma: RQ separates the queues of a worker by it."])
        engine = Engine(app, settings, self._tasks, kit)
        return Contribution(
            handle=engine,
            checks=(Check("jobs", lambda: self._look(engine), critical=False, timeout=0.5),),
            commands=(jobs_command(engine),),
        )

    def _look(self, engine: Engine) -> Finding:
        """Warn when jobs wait and nobody comes for them."""
        if not engine.redis.configured:
            if not engine.tasks.by_name:
                return Finding(detail="No job is registered.")
            return Finding("warn", "Jobs cannot be dispatched without a REDIS_URL.")

        states = engine.overview()
        data = {
            "workers": max(state.workers for state in states),
            "waiting": {state.queue: state.waiting for state in states},
            "failed": sum(state.failed for state in states),
        }
        unserved = [state.queue for state in states if state.waiting and not state.workers]
        if unserved:
            return Finding("warn", self._unserved.format(names=", ".join(unserved)), data)
        return Finding(data=data)
