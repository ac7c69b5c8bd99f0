"""What the checks before and after a deployment say, one line each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

OK, WARN, FAIL, SKIP = "ok", "warn", "fail", "skip"


@dataclass(frozen=True, slots=True)
class Result:
    """One check: `status` is ok, warn, fail or skip, `detail` a sentence without secrets."""

    name: str
    status: str
    detail: str
    seconds: float = 0.0


class Failed(Exception):
    """A check did not find what it wants; the text says what it found."""


class Skipped(Exception):
    """A check cannot be made here; the text says why, and what would make it possible."""


class Doubtful(Exception):
    """A check found something to look at that is no failure."""


_STATUS = {Failed: FAIL, Skipped: SKIP, Doubtful: WARN}

Check = tuple[str, Callable[[], str]]
"""A name, and a function that returns what it found, or raises one of the above."""


def run(checks: Iterable[Check]) -> Iterator[Result]:
    """Run one check after the other; an exception that nobody foresaw is a failure like any other."""
    for name, call in checks:
        began = time.monotonic()
        result = _run(name, call)
        yield replace(result, seconds=round(time.monotonic() - began, 3))


def good(results: Sequence[Result]) -> bool:
    """Tell whether no check has failed."""
    return all(result.status != FAIL for result in results)


def _run(name: str, call: Callable[[], str]) -> Result:
    try:
        return Result(name, OK, call())
    except (Failed, Skipped, Doubtful) as found:
        return Result(name, _STATUS[type(found)], str(found))
    except Exception as error:
        words = str(error).strip().partition("\n")[0]
        return Result(name, FAIL, f"{type(error).__name__}: {words}" if words else type(error).__name__)
