"""The places of a crew: what the supervisor knows of each worker process, and what it logs of their jobs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from flask_prod.components.jobs.delivery.processes import Slot
from flask_prod.components.jobs.delivery.source import Fate, Presence

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Berth:
    """One place in the crew; `pid` is 0 while nobody has it."""

    slot: Slot
    pid: int = 0
    token: str = ""
    name: str = ""
    born: float = 0.0
    fate: Fate = "crash"
    why: str = ""
    told: bool = False
    overdue: tuple[int, float] = (0, 0.0)
    failures: int = 0
    due: float = 0.0
    done: bool = False

    def presence(self, suspended: bool) -> Presence:
        """Return what others may see of the process that lives here."""
        slot = self.slot
        slot.look()
        state = "busy" if slot.began else "suspended" if suspended else "idle"
        return Presence(self.name, self.pid, self.born, state, slot.jobs, slot.failed, slot.busy)


def tell(found: Sequence[tuple[str, str]], why: str) -> None:
    """Log what became of jobs that their worker left."""
    for job_id, became in found:
        if became == "crash":
            logger.warning("Job %s is queued again: %s", job_id, why)
        elif became == "dead":
            logger.error("Job %s is dead after too many crashes: %s", job_id, why)
        elif became != "gone":
            logger.info("Job %s was %s: %s", job_id, became, why)
