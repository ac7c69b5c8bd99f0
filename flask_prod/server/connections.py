"""What only the server knows of a worker: how many connections it holds open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from flask_prod.components.metrics.face import AppMetrics


class Holder(Protocol):
    """What is asked of a gunicorn worker; only a gthread worker counts its connections."""

    wsgi: object
    nr_conns: int


def watch(worker: Holder) -> None:
    """Show the worker's open connections, idle ones included, in the metrics of the application it serves."""
    kit = getattr(getattr(worker, "wsgi", None), "extensions", {}).get("prod")
    contribution = kit.contributions.get("metrics") if kit is not None else None
    if contribution is None or not hasattr(worker, "nr_conns"):
        return
    metrics: AppMetrics = contribution.handle
    metrics.watch(
        "flask_prod_http_connections", "Connections open in workers, idle ones included", lambda: worker.nr_conns
    )
