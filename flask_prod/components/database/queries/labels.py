"""Operation and table of a statement, told from what SQLAlchemy knows of it: no statement of its own is parsed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, TypeAlias

from sqlalchemy import Table

Labels: TypeAlias = tuple[str, str]
"""Operation and table."""

OTHER = "other"
"""The table of a statement that is about none that is known, or about one too many."""

MOST_TABLES = 200
"""Tables told apart by one engine: a program that makes its tables by number has one series for the others."""

_LABELS = "_flask_prod_labels"
_DEEPEST = 8
_OF_KIND = {
    "select": "SELECT",
    "compound_select": "SELECT",
    "select_statement_grouping": "SELECT",
    "insert": "INSERT",
    "update": "UPDATE",
    "delete": "DELETE",
}
_KEYWORDS = frozenset(
    {"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "WITH", "CALL", "COPY"}
    | {"CREATE", "ALTER", "DROP", "TRUNCATE"}
)
_FIRST_WORD = re.compile(r"(?:\s|\(|;|--[^\n]*(?:\n|\Z)|/\*.*?(?:\*/|\Z))*+([a-zA-Z]+)?", re.DOTALL)
_MOST_READ = 4096
"""Characters in which the first word must be: comments in front are rarely longer."""


class Labeller:
    """Gives each statement its labels, once: they are kept with the compiled statement, which SQLAlchemy keeps."""

    def __init__(self) -> None:
        self._tables: set[str] = set()

    def label(self, compiled: Any, statement: str) -> Labels:
        """Return the labels of a statement, which is only read where it was written by hand."""
        if compiled is None:
            return keyword(statement), OTHER
        found: Labels | None = getattr(compiled, _LABELS, None)
        if found is None:
            found = self._look(compiled, statement)
            setattr(compiled, _LABELS, found)
        return found

    def _look(self, compiled: Any, statement: str) -> Labels:
        element = getattr(compiled, "statement", None)
        operation = operation_of(element, statement)
        table = next(_tables(element, 0), None)
        return operation, self._bounded(table)

    def _bounded(self, table: str | None) -> str:
        if table is None or (table not in self._tables and len(self._tables) >= MOST_TABLES):
            return OTHER
        self._tables.add(table)
        return table


def operation_of(element: Any, statement: str) -> str:
    """Return what a statement does: what it is for SQLAlchemy, or the first word of one written by hand."""
    kind = getattr(element, "__visit_name__", "")
    known = _OF_KIND.get(kind)
    if known is not None:
        return known
    for word in ("create", "drop"):
        if kind.startswith(f"{word}_"):
            return word.upper()
    return keyword(statement)


def keyword(statement: str) -> str:
    """Return the first word after comments, OTHER when it is none of the common ones."""
    if len(statement) > _MOST_READ:
        return _keyword(statement[:_MOST_READ])
    return _remembered(statement)


def _keyword(statement: str) -> str:
    match = _FIRST_WORD.match(statement)
    word = (match[1] or "").upper() if match is not None else ""
    return word if word in _KEYWORDS else "OTHER"


_remembered = lru_cache(maxsize=512)(_keyword)


def _tables(element: Any, depth: int) -> Iterator[str]:
    """Yield the names of tables that are known to a MetaData, the one that the statement begins with first."""
    if depth > _DEEPEST or element is None:
        return
    if isinstance(element, Table):
        yield str(element.fullname)
        return
    kind = getattr(element, "__visit_name__", "")
    if kind in ("insert", "update", "delete"):
        yield from _tables(element.table, depth + 1)
    elif kind == "select":
        for found in element.get_final_froms():
            yield from _tables(found, depth + 1)
    elif kind == "compound_select":
        for part in element.selects:
            yield from _tables(part, depth + 1)
    elif kind == "join":
        yield from _tables(element.left, depth + 1)
        yield from _tables(element.right, depth + 1)
    else:  # a name for something, or an order about a table
        yield from _tables(getattr(element, "element", None), depth + 1)
