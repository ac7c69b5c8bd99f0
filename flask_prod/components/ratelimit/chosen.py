"""Which answers count: all of a limit's requests are checked, only these are charged for."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import TypeAlias

from werkzeug.wrappers import Response

Chosen: TypeAlias = frozenset[int] | Callable[[Response], bool]
Count: TypeAlias = str | int | Collection[int] | Callable[[Response], bool]
"""What `count=` takes: `401`, `(401, 403)`, `"4xx"`, `"401,5xx"`, or a function of the response."""

_STATUS = re.compile(r"[1-5](?:\d\d|xx)")


def read_chosen(count: Count | None) -> Chosen | None:
    """Return the statuses, or the function, that *count* spells; ValueError when it spells none."""
    if count is None or callable(count):
        return count
    words = [count] if isinstance(count, int) else count.split(",") if isinstance(count, str) else count
    chosen = frozenset(status for word in words for status in _statuses(str(word).strip().lower()))
    if not chosen:
        raise ValueError('count must name statuses: 401, (401, 403), "4xx", or be a function of the response.')
    return chosen


def counts(chosen: Chosen, status: int, response: Callable[[], Response]) -> bool:
    """Tell whether an answer counts; *response* is made only for who asks more than the status."""
    return bool(chosen(response())) if callable(chosen) else status in chosen


def _statuses(word: str) -> range:
    if not _STATUS.fullmatch(word):
        raise ValueError(f'{word!r} is not a status to count; write 401 or "4xx".')
    first = int(word.replace("x", "0"))
    return range(first, first + 100 if word.endswith("xx") else first + 1)
