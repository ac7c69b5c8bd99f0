"""The files that Grafana's provisioning reads."""

from __future__ import annotations

from flask_prod.core.errors import MissingExtra

from ..plan import Plan
from .boards import boards


def dashboard_files(plan: Plan) -> dict[str, str]:
    """Return path -> text; MissingExtra without Grafana's SDK."""
    try:
        from .grafana import document
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("grafana_foundation_sdk"):
            raise
        raise MissingExtra("flask prod deploy init monitoring", "grafana-foundation-sdk", "deploy") from error
    return {f"grafana/dashboards/{board.name}.json": document(board, plan) for board in boards(plan)}
