"""Install the jobs room: an engine, a check, a command; no worker lives in a web process."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from flask import Flask

from flask_prod.core.component import Check, Component, Contribution, Finding, Installed
from flask_prod.core.errors import ConfigError
from flask_prod.core.later import Later
from flask_prod.core.ports import RedisPort

from .cli import jobs_command
from .face import JobsFace
from .settings import JobsSettings
from .task import Tasks

if TYPE_CHECKING:
    from .engine import Engine


class Jobs(Component[JobsSettings, "Engine | Later"]):
    """Run functions in worker processes; RQ is imported where there are jobs and a Redis to keep them."""

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

    def install(self, app: Flask, settings: JobsSettings, kit: Installed) -> Contribution[Engine | Later]:
        """Build the engine if there are jobs already, else with the first use; nothing connects before."""
        if "," in kit.service.namespace:
            raise ConfigError(["SERVICE_NAME must have no comma: RQ separates the queues of a worker by it."])
        redis: RedisPort = kit.handle("redis")

        def build() -> Engine:
            from .engine import Engine

            return Engine(app, settings, self._tasks, kit)

        def needed() -> bool:
            return redis.configured and bool(self._tasks.by_name)

        later = Later(build)
        engine: Engine | Later = later.build() if needed() else later
        return Contribution(
            handle=engine,
            checks=(Check("jobs", lambda: self._look(engine, redis), critical=False, timeout=0.5),),
            commands=(jobs_command(engine, redis),),
            # Jobs may have been registered since; the first request that dispatches one need not import RQ.
            start=lambda: later.build() if needed() else None,
            after_fork=later.after_fork,
        )

    def _look(self, engine: Engine | Later, redis: RedisPort) -> Finding:
        """Warn when jobs wait and nobody comes for them."""
        if not redis.configured:
            if not self._tasks.by_name:
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
