"""Which dashboards an application gets."""

from __future__ import annotations

from ..plan import Plan
from .business import board as business
from .cache import board as cache
from .database import board as database
from .jobs import board as jobs
from .limits import board as limits
from .panel import Board
from .resources import board as resources
from .service import board as service
from .slo import board as slo


def boards(plan: Plan) -> tuple[Board, ...]:
    """Return the dashboards of the rooms that the application has; none without the metrics room."""
    if "metrics" not in plan.rooms:
        return ()
    found = (make(plan) for make in (service, slo, resources, database, cache, jobs, limits, business))
    return tuple(board for board in found if board is not None)
