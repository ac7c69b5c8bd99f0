"""A job that does nothing: whether workers take jobs and bring them back, asked of the real thing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from flask_prod.core.errors import ProdKitError

from ..tasks.options import Options
from ..tasks.task import AnyTask, Task

if TYPE_CHECKING:
    from flask_prod.core.later import Later

    from ..engine import Engine

_LOOK = 0.05
"""Seconds between two looks at a job."""


class NobodyCame(ProdKitError):
    """A job was not done in time: no worker serves its queue, or none gets to it."""


def ping() -> str:
    """Return a word."""
    return "pong"


PING: AnyTask = Task(ping, Options())
"""Known to every application, listed by none."""


def ping_queues(engine: Engine | Later, seconds: float, queues: tuple[str, ...] = ()) -> dict[str, float]:
    """Send a job to each queue that is served, wait for all, and return how long each took, in seconds.

    NobodyCame names the queues from which none came back in time.
    """
    began = time.monotonic()
    waiting = {queue: _send(engine, queue) for queue in queues or engine.queues()}
    done: dict[str, float] = {}
    while len(done) < len(waiting) and time.monotonic() - began < seconds:
        for queue, job_id in waiting.items():
            if queue not in done and _finished(engine, job_id):
                done[queue] = time.monotonic() - began
        time.sleep(_LOOK)
    missing = [queue for queue in waiting if queue not in done]
    if missing:
        names = ", ".join(missing)
        raise NobodyCame(f"no worker has done a job of {names} within {seconds:g} s: is there a worker?")
    return done


def _send(engine: Engine | Later, queue: str) -> str:
    """Dispatch one, by way of the outbox where there is one, so that this is tried too."""
    with engine.app.app_context():
        job = PING.on(queue).priority("high").dispatch()
        _commit(engine)
    return str(job.id)


def _commit(engine: Engine | Later) -> None:
    if engine.backend.outboxed and engine.settings.outbox == "always":
        session: Any = engine.backend.outbox().session
        if session is not None:
            session.commit()


def _finished(engine: Engine | Later, job_id: str) -> bool:
    if engine.backend.kind == "database":
        return _finished_in_database(engine, job_id)
    job = engine.find(job_id)
    return job is not None and bool(job.is_finished)


def _finished_in_database(engine: Engine | Later, job_id: str) -> bool:
    import sqlalchemy as sa

    from ..outbox.overview import unavailable

    outbox = engine.backend.outbox()
    table = outbox.table
    with unavailable(), outbox.engine.connect() as connection:
        status = connection.scalar(sa.select(table.c.status).where(table.c.job_id == job_id))
    return status in (None, "finished")
