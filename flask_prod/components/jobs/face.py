"""What users hold: the decorators that register jobs and schedules, and what can be asked of jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from .schedule.schedules import Missed, Schedule, cron, every
from .tasks.options import Priority, Span, Until, read_options
from .tasks.progress import report
from .tasks.retries import Backoff, Errors
from .tasks.task import AnyTask, OnFailure, Task, Tasks, current_engine

if TYPE_CHECKING:
    from rq.job import Job
    from rq.queue import Queue

ParamsT = ParamSpec("ParamsT")
ReturnT = TypeVar("ReturnT")


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
        retry_on: type[BaseException] | Errors | None = ...,
        never: type[BaseException] | Errors | None = ...,
        unique: bool | Callable[..., object] = ...,
        unique_until: Until = ...,
        unique_for: Span = ...,
        priority: Priority = ...,
        tags: str | Sequence[str] = ...,
        limit: int | tuple[str, int] | None = ...,
        idempotent: bool = ...,
        on_failure: OnFailure | None = ...,
    ) -> Callable[[Callable[ParamsT, ReturnT]], Task[ParamsT, ReturnT]]: ...

    def job(self, function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Register a function as a job: `@prod.job` or `@prod.job(queue="emails", retry=3, timeout="30s")`.

        `retry` counts attempts after the first; `backoff` is "exponential", "linear", one delay or a list; only
        exceptions of `retry_on` and none of `never` are worth one. `unique` allows one job at a time with the same
        arguments, or the same answer of a function of them, until it is finished, or has started (`unique_until`),
        for a day at most (`unique_for`). `limit` lets so many run at a time over all workers, `limit=("bank", 2)`
        with other jobs of that key. `priority="high"` goes to the front of the queue. `idempotent` remembers
        that a dispatch has finished, so that a second delivery runs nothing.
        `on_failure(job, reason)` is called in the application context once the last attempt has failed.
        """
        on_failure = options.pop("on_failure", None)
        chosen = read_options(options)

        def register(target: Callable[..., Any]) -> AnyTask:
            task: AnyTask = Task(target, chosen, on_failure)
            self.tasks.add(task)
            return task

        return register if function is None else register(function)

    def cron(
        self, expression: str, /, *, timezone: str = "UTC", missed: Missed = "skip", name: str = "", **options: Any
    ) -> Callable[[Callable[ParamsT, ReturnT] | Task[ParamsT, ReturnT]], Task[ParamsT, ReturnT]]:
        """Run a job at the times of a cron expression: `@prod.cron("0 3 * * *", timezone="Europe/Berlin")`.

        *missed* says what happens to times at which no worker lived: "skip" them, or "run_once" for all of them
        together. Takes a plain function, with the options of `job`, or one that is a job already.
        """
        register: Callable[..., Task[ParamsT, ReturnT]] = self._schedule(
            lambda task: cron(task, expression, timezone, missed, name), options
        )
        return register

    def every(
        self, span: Span, /, *, missed: Missed = "skip", name: str = "", **options: Any
    ) -> Callable[[Callable[ParamsT, ReturnT] | Task[ParamsT, ReturnT]], Task[ParamsT, ReturnT]]:
        """Run a job again and again, at whole multiples of *span* since 1970: `@prod.every("10m")`."""
        register: Callable[..., Task[ParamsT, ReturnT]] = self._schedule(
            lambda task: every(task, span, missed, name), options
        )
        return register

    def queue(self, name: str = "default") -> Queue:
        """Return the current application's RQ queue of this name."""
        return current_engine().queue(name)

    def fetch(self, job_id: str) -> Job:
        """Return a job by its id; rq.exceptions.NoSuchJobError when it is gone."""
        return current_engine().fetch(job_id)

    def group(self, name: str) -> list[Job]:
        """Return the jobs of a group that are still known, in no order."""
        return current_engine().group(name)

    def progress(self, fraction: float, message: str = "") -> None:
        """Say from within a job how far it is, 0 to 1; does nothing outside of one, so that it can be tested."""
        report(fraction, message)

    def cancel(self, job_id: str) -> str:
        """Let a job not run, or stop it where it runs; return what it was: queued, scheduled, deferred or started.

        ValueError for a job that has ended; NoSuchJobError for one that is not known.
        """
        return current_engine().office.cancel(job_id)

    def names(self) -> Sequence[str]:
        """Return the names of all registered jobs."""
        return tuple(self.tasks.by_name)

    def _schedule(self, make: Callable[[AnyTask], Schedule], options: dict[str, Any]) -> Any:
        def register(target: Any) -> AnyTask:
            if isinstance(target, Task) and options:
                raise TypeError(f"{target.name} is a job already: give {', '.join(options)} to its @prod.job")
            task: AnyTask = target if isinstance(target, Task) else self.job(**options)(target)
            task.schedules.append(make(task))
            return task

        return register
