"""How an accepted job gets to its end, once at least: where its state lies, and what a worker asks of a source.

**In Redis** (`redis_store/`), a job is always in exactly one place; each move is one Lua script:

    place                               meaning
    ----------------------------------  ------------------------------------------------------------------------
    rq:job:<id>                         the record: RQ's fields, and ours: `crashes` (processes it has cost),
                                        `interrupted` (stops that put it back), `idempotent` (1 or missing)
    list rq:queue:<queue>               accepted, status `queued`
    sorted set rq:scheduled:<queue>     accepted, due at the score: `.delay()`, `.at()`, and waits before a retry
    sorted set rq:wip:<queue>           running: `<id>:<token>`, status `started`; the score is when its lease ends
    sorted set rq:finished:<queue>      ended well; kept for the result's life
    sorted set rq:failed:<queue>        dead; its result stream tells why
    sorted set <ns>:jobs:untold         dead, and nobody has told of it yet (`on_failure`, event, counter)
    string <ns>:jobs:done:<id>          the marker of a finished idempotent job; outlives its record

These are RQ's own registries: `rq info`, dashboards and `rq.job.Job` see the truth. The intermediate list and
the execution records of RQ's workers are not used.

**Taking** moves the id from its queue to `wip` in one step, so there is no moment in which it is in neither. The
token begins with that of the worker process: whoever sees a process die finds all that it held. A living
supervisor prolongs the leases of its children (`beat`); a child that died gives its jobs back at once (`lost`);
a lease that ends belongs to a worker or a machine that is gone (`recover`).

**Settling** removes that one entry of `wip`, and does nothing when it is not there any more: a worker that was
frozen, and whose job somebody else has, cannot overwrite what the other one does.

**Another source**, a table in a database or a list in memory, implements `Source`; the same worker works from it.
Its jobs are `engine.job_class` objects made by `restore()` from the fields of `Job.to_dict()`: what a dispatch
stores, and what a relay hands on to Redis, are the same fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from rq.job import Job


class SourceAway(Exception):
    """The source cannot be reached; the worker waits and asks again."""


@dataclass(slots=True)
class Delivery:
    """One attempt at a job: the right to run it, as long as its lease lasts."""

    job: Job
    queue: str
    """The queue's name without the namespace."""
    token: str
    """Names this attempt; begins with the token of the process that took it."""
    unreadable: Dead | None = None
    """Why the job cannot run: its record is not one that a dispatch wrote."""


@dataclass(frozen=True, slots=True)
class Finished:
    """It ended well."""

    result: Any = None


@dataclass(frozen=True, slots=True)
class Again:
    """It failed, and is tried again after so many seconds; this costs one of its retries.

    Not so when it *asked* for it, by returning RQ's Retry: that has a count of its own.
    """

    seconds: float
    reason: str
    asked: bool = False


@dataclass(frozen=True, slots=True)
class Dead:
    """It failed for the last time; `reason` is what people read: a traceback or a sentence."""

    error: str
    """The name of the exception's type, for metrics and events."""
    reason: str


@dataclass(frozen=True, slots=True)
class Released:
    """It did not come to its end through no fault of its own: first in its queue again, and nothing is counted."""

    begun: bool = True


Outcome: TypeAlias = Finished | Again | Dead | Released

Fate: TypeAlias = Literal["crash", "released", "stopped"]
"""Why a process is gone: its job may have killed it, the worker had to stop, or somebody stopped the job."""


@dataclass(frozen=True, slots=True)
class Untold:
    """A dead job that this process tells of: it was claimed, so nobody else does."""

    job: Job
    error: str
    reason: str


@dataclass(frozen=True, slots=True)
class Orders:
    """What people have asked of workers, as the source knows it now."""

    paused: frozenset[str] = frozenset()
    """Queues from which nothing is taken."""
    suspended: bool = False
    """Nothing is taken from any queue: `rq suspend`."""
    restart: str = ""
    """Changes when all workers should begin anew."""
    stops: frozenset[str] = frozenset()
    """Ids of running jobs that should be stopped."""


@dataclass(frozen=True, slots=True)
class Presence:
    """A living worker process, for those who watch."""

    name: str
    pid: int
    born: float
    """Seconds since the epoch."""
    state: str
    """idle, busy or suspended, in RQ's words."""
    jobs: int
    failed: int
    busy: float
    """Seconds that its jobs have taken."""


class Source(Protocol):
    """Where jobs come from. Every method may raise SourceAway; none of them waits longer than a few seconds.

    In a child: `take`, `settle`, `wait`, `tell`. In the supervisor: the others.
    """

    def take(self, queues: Sequence[str], token: str) -> Delivery | None:
        """Take the first job of the first of these queues that has one; None when all are empty."""

    def settle(
        self, delivery: Delivery, outcome: Outcome, queues: Sequence[str] = (), token: str = ""
    ) -> tuple[bool, Delivery | None]:
        """Write down how an attempt ended, and take the next job in the same step when there are *queues*.

        False when the attempt had lost its lease: then nothing was written.
        """

    def wait(self, queues: Sequence[str], seconds: float) -> None:
        """Return when one of the queues may have a job, or after so many seconds."""

    def tell(self) -> Iterable[Untold]:
        """Claim dead jobs of which nobody has told."""

    def orders(self) -> Orders:
        """Return what people have asked for."""

    def beat(self, tokens: Sequence[str]) -> list[tuple[str, str]]:
        """Prolong the leases of these attempts; return the id and the token of those that run."""

    def present(self, living: Sequence[Presence], gone: Sequence[str]) -> None:
        """Say which workers live, for three heartbeats, and which have ended, by name."""

    def lost(self, token: str, fate: Fate, why: str) -> list[tuple[str, str]]:
        """Give back what a dead process held, by the beginning of its tokens.

        A crash is counted: the job runs again at once, or is dead after JOBS_MAX_CRASHES, *why* being the reason.
        Returns ids, and what became of each: crash, dead, released, stopped, or gone.
        """

    def look_after(self) -> list[tuple[str, str]]:
        """Move what is due, give back what lost its lease (returned as by `lost`), forget what has expired."""
