"""The rows of a query, as they come from the cache or from the database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy.engine import IteratorResult, Result
from sqlalchemy.engine.result import SimpleResultMetaData


class Rows(list[Any]):
    """The rows of a query: a list of SQLAlchemy's `Row`, with the methods of a result that are used most."""

    def __init__(self, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        self.names = tuple(names)
        super().__init__(result_of(self.names, rows).all())

    def all(self) -> list[Any]:
        """Return the rows."""
        return list(self)

    def first(self) -> Any:
        """Return the first row, None if there is none."""
        return self[0] if self else None

    def one(self) -> Any:
        """Return the only row; an exception of SQLAlchemy's if there is none, or another."""
        return self.result().one()

    def scalar(self) -> Any:
        """Return the first column of the first row, None if there is none."""
        return self[0][0] if self else None

    def scalars(self) -> list[Any]:
        """Return the first column of every row."""
        return [row[0] for row in self]

    def mappings(self) -> list[dict[str, Any]]:
        """Return every row as a dict."""
        return [dict(zip(self.names, row, strict=True)) for row in self]

    def result(self) -> Result[Any]:
        """Return the rows as a `Result`, with all of its methods."""
        return result_of(self.names, self)


def result_of(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> Result[Any]:
    """Return a result of SQLAlchemy's that was read already."""
    return IteratorResult(SimpleResultMetaData(tuple(names)), iter([tuple(row) for row in rows]))
