"""How many connections a service may open; plain arithmetic, for whoever plans without a database."""

from __future__ import annotations

from ..settings import DatabaseSettings

JOB = 2
"""Connections of a job worker: one of the job that it runs, one of its own."""


def wanted(settings: DatabaseSettings, processes: int, job_workers: int = 0) -> int:
    """Return how many connections to the primary so many web processes and job workers may open together."""
    return processes * settings.max_open_conns + job_workers * min(settings.max_open_conns, JOB)
