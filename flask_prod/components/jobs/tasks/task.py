"""A job as its function's users see it: it can be called, dispatched, and dispatched otherwise."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeAlias, TypeVar

from flask_prod.core.errors import NotInstalled
from flask_prod.core.kit import current_state

from .arguments import Shape
from .options import Options, Priority, Span, later, moment

if TYPE_CHECKING:
    from rq.job import Job

    from ..engine import Engine
    from ..schedule.schedules import Schedule

ParamsT = ParamSpec("ParamsT")
ReturnT = TypeVar("ReturnT")
OnFailure: TypeAlias = "Callable[[Job, str], object]"
Arguments: TypeAlias = "Mapping[str, Any] | tuple[Any, ...]"


class Dispatcher(Generic[ParamsT]):
    """A job and how to queue it; each method that configures returns a new dispatcher."""

    def __init__(self, task: Task[ParamsT, Any], options: Options) -> None:
        self._task = task
        self._options = options

    def on(self, queue: str) -> Dispatcher[ParamsT]:
        """Put it on another queue, which must be one that workers serve: of JOBS_QUEUES, or named by a job."""
        return self._with(queue=queue)

    def delay(self, span: Span) -> Dispatcher[ParamsT]:
        """Run it no sooner than after *span*: "5m", seconds, or a timedelta."""
        return self._with(due=later(span))

    def at(self, when: datetime) -> Dispatcher[ParamsT]:
        """Run it no sooner than *when*, which must have a time zone; the scheduler counts in whole seconds."""
        return self._with(due=moment(when))

    def retry(self, times: int) -> Dispatcher[ParamsT]:
        """Try again up to so many times after a failure."""
        return self._with(retry=times)

    def priority(self, priority: Priority) -> Dispatcher[ParamsT]:
        """Put it to the front of its queue ("high") or to the end ("normal")."""
        return self._with(priority=priority)

    def tagged(self, *tags: str) -> Dispatcher[ParamsT]:
        """Add tags, by which people find it."""
        return self._with(tags=(*self._options.tags, *tags))

    def limited(self, key: str, most: int) -> Dispatcher[ParamsT]:
        """Let no more than *most* jobs with this key run at a time, over all workers: one per customer, say."""
        return self._with(limit=(key, most))

    def after(self, *jobs: Job | str) -> Dispatcher[ParamsT]:
        """Run it only when these jobs have ended well; while one of them is dead or canceled, it waits."""
        return self._with(after=tuple(job if isinstance(job, str) else job.id for job in jobs))

    def in_group(self, name: str) -> Dispatcher[ParamsT]:
        """Count it to a group, whose jobs `prod.jobs.group(name)` returns."""
        return self._with(group=name)

    def within(self, session: Any) -> Dispatcher[ParamsT]:
        """Write it to the outbox in this SQLAlchemy session's transaction; needs JOBS_OUTBOX."""
        return self._with(session=session)

    def dispatch(self, *args: ParamsT.args, **kwargs: ParamsT.kwargs) -> Job:
        """Queue the job on the current application's Redis and return RQ's job.

        TypeError when the arguments do not fit the function or cannot be stored; ValueError for a queue that
        nobody serves, or more bytes than JOBS_PAYLOAD_LIMIT; Unavailable, within 250 ms, when Redis cannot be
        reached: the job was then not accepted. For a `unique` job that is there already, that one is returned.
        """
        return current_engine().dispatch(self._task, self._options, args, kwargs)

    def dispatch_many(self, calls: Iterable[Arguments]) -> list[Job]:
        """Queue one job for each call, given by its arguments: a mapping of names, or a tuple.

        All are looked at before the first is queued, so that one wrong call means none is. They go in batches, one
        round trip each; Unavailable between two of them says how many were accepted.
        """
        split = [((), dict(call)) if isinstance(call, Mapping) else (tuple(call), {}) for call in calls]
        return current_engine().dispatch_many(self._task, self._options, split)

    def _with(self, **changes: Any) -> Dispatcher[ParamsT]:
        return Dispatcher(self._task, replace(self._options, **changes))


class Task(Dispatcher[ParamsT], Generic[ParamsT, ReturnT]):
    """A function that workers may run; calling it runs it here and now."""

    __name__: str

    def __init__(
        self,
        function: Callable[ParamsT, ReturnT],
        options: Options | None = None,
        on_failure: OnFailure | None = None,
    ) -> None:
        self.options = options or Options()
        super().__init__(self, self.options)
        self.function = function
        self.on_failure = on_failure
        self.schedules: list[Schedule] = []
        # RQ's own spelling, so that its tools show a name that leads to the code.
        self.name = f"{function.__module__}.{function.__qualname__}"
        self.shape = Shape(self.name, function)
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *args: ParamsT.args, **kwargs: ParamsT.kwargs) -> ReturnT:
        """Run the function here, without queue, retries or time limit."""
        return self.function(*args, **kwargs)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function with arguments as they were stored."""
        made, named = self.shape.revive(args, kwargs)
        return self.function(*made, **named)

    def __repr__(self) -> str:
        return f"<job {self.name} on {self.options.queue}>"


AnyTask: TypeAlias = Task[Any, Any]


@dataclass
class Tasks:
    """The allow-list: every job of one kit by its name; nothing else runs."""

    by_name: dict[str, AnyTask] = field(default_factory=dict)
    hidden: dict[str, AnyTask] = field(default_factory=dict)
    """The kit's own: workers run them, and nobody lists them."""

    def add(self, task: AnyTask) -> None:
        """Register *task*; a later one of the same name replaces it, as a later `def` does."""
        self.by_name[task.name] = task

    def get(self, name: object) -> AnyTask | None:
        """Return the task of this name, None for a name that was never registered."""
        return self.by_name.get(name) or self.hidden.get(name) if isinstance(name, str) else None

    def queues(self) -> tuple[str, ...]:
        """Return the queues that registered jobs name, in order of registration; default comes last."""
        named = dict.fromkeys(task.options.queue for task in self.by_name.values())
        named.pop("default", None)
        return (*named, "default")

    def schedules(self) -> list[Schedule]:
        """Return the schedules of all jobs, in order of registration."""
        return [schedule for task in self.by_name.values() for schedule in task.schedules]

    def __iter__(self) -> Iterator[AnyTask]:
        return iter(self.by_name.values())


def current_engine() -> Engine:
    """Return the jobs of the current application; NotInstalled when its kit leaves jobs out."""
    contribution = current_state().contributions.get("jobs")
    if contribution is None:
        raise NotInstalled("jobs is left out of this application's kit: see only= and without= of ProdKit.")
    engine: Engine = contribution.handle
    return engine
