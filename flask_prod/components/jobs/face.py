"""What users hold: the decorator that registers a job, and the job that can be called or dispatched."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeAlias, TypeVar, overload

from flask_prod.core.errors import NotInstalled
from flask_prod.core.kit import current_state
from flask_prod.core.values import parse_duration

from .retries import Backoff, check_backoff
from .settings import QUEUE_NAME

if TYPE_CHECKING:
    from rq.job import Job
    from rq.queue import Queue

    from .engine import Engine

ParamsT = ParamSpec("ParamsT")
ReturnT = TypeVar("ReturnT")
Span: TypeAlias = str | float | timedelta
OnFailure: TypeAlias = "Callable[[Job, str], object]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a job is queued; `timeout` is in seconds, None for JOBS_DEFAULT_TIMEOUT."""

    queue: str = "default"
    retry: int = 0
    timeout: float | None = None
    backoff: Backoff = "exponential"
    due: datetime | None = None
    idempotent: bool = False

    def __post_init__(self) -> None:
        if not QUEUE_NAME.fullmatch(self.queue):
            raise ValueError(f"a queue name has letters, digits, and the signs . _ - only, not {self.queue!r}")
        if self.retry < 0:
            raise ValueError(f"retry must be zero or more, not {self.retry}")
        if self.timeout is not None and self.timeout < 1:
            raise ValueError("timeout must be at least one second")
        check_backoff(self.backoff)


class Dispatcher(Generic[ParamsT]):
    """A job and how to queue it; each method that configures returns a new dispatcher."""

    def __init__(self, task: Task[ParamsT, Any], options: Options) -> None:
        self._task = task
        self._options = options

    def on(self, queue: str) -> Dispatcher[ParamsT]:
        """Put it on another queue."""
        return self._with(queue=queue)

    def delay(self, span: Span) -> Dispatcher[ParamsT]:
        """Run it no sooner than after *span*: "5m", seconds, or a timedelta."""
        return self._with(due=datetime.now(UTC) + timedelta(seconds=parse_duration(span)))

    def at(self, when: datetime) -> Dispatcher[ParamsT]:
        """Run it no sooner than *when*, which must have a time zone; the scheduler counts in whole seconds."""
        if when.tzinfo is None:
            raise ValueError(f"at() needs a time zone: {when.isoformat()} means another moment on each machine")
        return self._with(due=when)

    def retry(self, times: int) -> Dispatcher[ParamsT]:
        """Try again up to so many times after a failure."""
        return self._with(retry=times)

    def dispatch(self, *args: ParamsT.args, **kwargs: ParamsT.kwargs) -> Job:
        """Queue the job on the current application's Redis and return RQ's job.

        TypeError when the arguments do not fit the function or cannot be stored; Unavailable, within 250 ms, when
        Redis cannot be reached: the job was then not accepted.
        """
        return current_engine().dispatch(self._task, self._options, args, kwargs)

    def _with(self, **changes: Any) -> Dispatcher[ParamsT]:
        return Dispatcher(self._task, replace(self._options, **changes))


class Task(Generic[ParamsT, ReturnT]):
    """A function that workers may run; calling it runs it here and now."""

    __name__: str

    def __init__(
        self, function: Callable[ParamsT, ReturnT], options: Options, on_failure: OnFailure | None
    ) -> None:
        self.function = function
        self.options = options
        self.on_failure = on_failure
        self.signature = inspect.signature(function)
        # RQ's own spelling, so that its tools show a name that leads to the code.
        self.name = f"{function.__module__}.{function.__qualname__}"
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *args: ParamsT.args, **kwargs: ParamsT.kwargs) -> ReturnT:
        """Run the function here, without queue, retries or time limit."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<job {self.name} on {self.options.queue}>"

    def dispatch(self, *args: ParamsT.args, **kwargs: ParamsT.kwargs) -> Job:
        """Queue the job; see `Dispatcher.dispatch`."""
        return current_engine().dispatch(self, self.options, args, kwargs)

    def on(self, queue: str) -> Dispatcher[ParamsT]:
        """Return a dispatcher for another queue."""
        return Dispatcher(self, self.options).on(queue)

    def delay(self, span: Span) -> Dispatcher[ParamsT]:
        """Return a dispatcher that waits for *span* first."""
        return Dispatcher(self, self.options).delay(span)

    def at(self, when: datetime) -> Dispatcher[ParamsT]:
        """Return a dispatcher that waits until *when*."""
        return Dispatcher(self, self.options).at(when)

    def retry(self, times: int) -> Dispatcher[ParamsT]:
        """Return a dispatcher that tries again up to so many times."""
        return Dispatcher(self, self.options).retry(times)


AnyTask: TypeAlias = Task[Any, Any]


@dataclass
class Tasks:
    """The allow-list: every job of one kit by its name; nothing else runs."""

    by_name: dict[str, AnyTask] = field(default_factory=dict)

    def add(self, task: AnyTask) -> None:
        """Register *task*; a later one of the same name replaces it, as a later `def` does."""
        self.by_name[task.name] = task

    def get(self, name: object) -> AnyTask | None:
        """Return the task of this name, None for a name that was never registered."""
        return self.by_name.get(name) if isinstance(name, str) else None

    def queues(self) -> tuple[str, ...]:
        """Return the queues that registered jobs name, in order of registration; default comes last."""
        named = dict.fromkeys(task.options.queue for task in self.by_name.values())
        named.pop("default", None)
        return (*named, "default")

    def __iter__(self) -> Iterator[AnyTask]:
        return iter(self.by_name.values())


class JobsFace:
    """`prod.jobs`: registers jobs before any application exists; queues and jobs are the current one's."""

    def __init__(self, tasks: Tasks) -> None:
        self.tasks = tasks

    @overload
    def job(self, function: Callable[ParamsT, ReturnT], /) -> Task[ParamsT, ReturnT]: ...

    @overload
    def job(
        self,
        /,
        *,
        queue: str = ...,
        retry: int = ...,
        timeout: Span | None = ...,
        backoff: Backoff = ...,
        idempotent: bool = ...,
        on_failure: OnFailure | None = ...,
    ) -> Callable[[Callable[ParamsT, ReturnT]], Task[ParamsT, ReturnT]]: ...

    def job(self, function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Register a function as a job: `@prod.job` or `@prod.job(queue="emails", retry=3, timeout="30s")`.

        `retry` counts attempts after the first; `backoff` is "exponential", "linear", one delay or a list.
        With `idempotent` a marker is kept of each finished dispatch, so that a second delivery runs nothing.
        `on_failure(job, reason)` is called in the application context once the last attempt has failed.
        """
        on_failure = options.pop("on_failure", None)
        if options.get("timeout") is not None:
            options["timeout"] = parse_duration(options["timeout"])
        chosen = Options(**options)

        def register(target: Callable[..., Any]) -> AnyTask:
            task = Task(target, chosen, on_failure)
            self.tasks.add(task)
            return task

        return register if function is None else register(function)

    def queue(self, name: str = "default") -> Queue:
        """Return the current application's RQ queue of this name."""
        return current_engine().queue(name)

    def fetch(self, job_id: str) -> Job:
        """Return a job by its id; rq.exceptions.NoSuchJobError when it is gone."""
        return current_engine().fetch(job_id)

    def names(self) -> Sequence[str]:
        """Return the names of all registered jobs."""
        return tuple(self.tasks.by_name)


def current_engine() -> Engine:
    """Return the jobs of the current application; NotInstalled when its kit leaves jobs out."""
    contribution = current_state().contributions.get("jobs")
    if contribution is None:
        raise NotInstalled("jobs is left out of this application's kit: see only= and without= of ProdKit.")
    engine: Engine = contribution.handle
    return engine
