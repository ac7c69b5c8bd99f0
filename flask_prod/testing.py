"""What helps to test an application that has a kit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_SHOWN = 10
_LONGEST = 300


@contextmanager
def max_queries(most: int) -> Iterator[list[str]]:
    """Fail the block when it asks databases more than *most* times; gives the list of what it asked.

    `with max_queries(3): client.get("/orders")` finds a view that loads its rows one by one. AssertionError names
    the statements that came most often, as they were sent, without parameters. Counted are the queries of all
    engines of SQLAlchemy and all threads of this process.
    """
    from sqlalchemy import Engine, event

    asked: list[str] = []
    lock = Lock()

    def count(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        with lock:
            asked.append(statement)

    event.listen(Engine, "before_cursor_execute", count)
    try:
        yield asked
    finally:
        event.remove(Engine, "before_cursor_execute", count)
    if len(asked) > most:
        raise AssertionError(_told(asked, most))


def _told(asked: list[str], most: int) -> str:
    common = Counter(asked).most_common(_SHOWN)
    rows = [f"  {count} x {' '.join(statement.split())[:_LONGEST]}" for statement, count in common]
    if common and common[0][1] > 1:
        rows.append("What comes often may be loaded with its parents: .options(selectinload(...)).")
    return "\n".join((f"{len(asked)} queries, and {most} may be:", *rows))
