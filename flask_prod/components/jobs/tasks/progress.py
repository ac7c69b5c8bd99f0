"""How far a job is, said by the job itself and kept in its record."""

from __future__ import annotations

import logging
import time

from flask_prod.core.errors import Unavailable

from .task import current_engine

logger = logging.getLogger(__name__)

KEY = "progress"
"""Where in a job's `meta` it lies: a mapping of fraction, message and moment."""

_STEP = 0.01
"""Less news than this, without another message, is not worth a command to Redis."""


def report(fraction: float, message: str = "") -> None:
    """Keep the progress of the current job; does nothing outside of one, nor fails a job when Redis is away."""
    from rq import get_current_job

    if not 0 <= fraction <= 1:
        raise ValueError(f"progress is a fraction from 0 to 1, not {fraction!r}")
    job = get_current_job()
    if job is None:
        return
    said = job.meta.get(KEY) or {}
    if said.get("message") == message and 0 <= fraction - said.get("fraction", -1.0) < _STEP and fraction < 1:
        return
    job.meta[KEY] = {"fraction": round(float(fraction), 4), "message": str(message), "at": round(time.time(), 3)}
    try:
        current_engine().desk.keeper.keep_meta(job)
    except Unavailable:
        logger.warning("The progress of job %s could not be written down", job.id)
