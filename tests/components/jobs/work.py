"""The jobs of the tests, registered when this module is imported, as an application's are."""

from __future__ import annotations

from typing import Any

from rq.job import Job

from flask_prod import ProdKit

prod = ProdKit(only=("jobs",))

given_up: list[tuple[str, str]] = []


def note(job: Job, reason: str) -> None:
    given_up.append((job.id, reason))


@prod.jobs.job
def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


@prod.jobs.job(queue="emails", retry=3, timeout="30s", backoff="exponential", on_failure=note)
def send_mail(user_id: int, **extra: Any) -> None:
    """Send a mail."""
