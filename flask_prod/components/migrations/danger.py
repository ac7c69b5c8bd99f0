"""Which statements of SQL destroy data: read from the text alone, so that `op.execute` hides nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """What the database has; without it everything that is named counts as there."""

    type_of: Callable[[str, str], str | None] = lambda _table, _column: None
    """The type that a column of a table has now; None for one that is not there yet."""

    is_new: Callable[[str], bool] = lambda _table: False
    """Whether a table was not there when the migration began: what is dropped of it held nobody's data."""


_NAME = r"((?:[\w$]+|\"[^\"]+\"|`[^`]+`|\[[^\]]+\])(?:\.(?:[\w$]+|\"[^\"]+\"|`[^`]+`|\[[^\]]+\]))*)"
_FLAGS = re.IGNORECASE | re.DOTALL
_NOISE = re.compile(r"--[^\n]*|/\*(?!M?!).*?\*/|'(?:[^'\\]|''|\\.)*'", re.DOTALL)
"""Comments and literals; what MySQL and MariaDB run although it looks like a comment, `/*! ... */`, is neither."""

_SPACE = re.compile(r"\s+")

_TABLES = (
    (re.compile(rf"\bDROP\s+TABLE\s+(?:IF\s+EXISTS\s+)?{_NAME}", _FLAGS), "drops the table {}"),
    (re.compile(rf"\bTRUNCATE\s+(?:TABLE\s+)?(?:ONLY\s+)?{_NAME}", _FLAGS), "empties the table {}"),
    (re.compile(rf"\bDELETE\s+FROM\s+(?:ONLY\s+)?{_NAME}", _FLAGS), "deletes rows of {}"),
)
_OTHERS = (
    (re.compile(rf"\bDROP\s+(?:SCHEMA|DATABASE)\s+(?:IF\s+EXISTS\s+)?{_NAME}", _FLAGS), "drops all of {}"),
    (re.compile(rf"\bDROP\s+SEQUENCE\s+(?:IF\s+EXISTS\s+)?{_NAME}", _FLAGS), "drops the sequence {}"),
    (re.compile(rf"\bDROP\s+(?!TABLE\b)(?:\w+\s+)+?{_NAME}\s+CASCADE\b", _FLAGS), "drops what depends on {}"),
)
_ALTER = re.compile(rf"\bALTER\s+TABLE\s+(?:IF\s+EXISTS\s+)?(?:ONLY\s+)?{_NAME}\s+(.*)", _FLAGS)
_KEPT = r"(?:CONSTRAINT|INDEX|KEY|PRIMARY|FOREIGN|CHECK|DEFAULT|NOT|IDENTITY|EXPRESSION|PARTITION)\b"
_COLUMN = re.compile(
    rf"\bDROP\s+(?:COLUMN\s+(?:IF\s+EXISTS\s+)?|(?:IF\s+EXISTS\s+)?(?!{_KEPT}|COLUMN\b|IF\b)){_NAME}", _FLAGS
)
_TYPE = re.compile(
    rf"\bALTER\s+(?:COLUMN\s+)?{_NAME}\s+(?:SET\s+DATA\s+)?TYPE\s+([^,(]+(?:\([^)]*\)[^,]*)?)", _FLAGS
)
_KIND = r"([A-Za-z]+(?:\s*\([^)]*\))?(?:\s+UNSIGNED\b)?)"
_MYSQL_TYPE = (
    re.compile(rf"\bMODIFY\s+(?:COLUMN\s+)?{_NAME}\s+{_KIND}", _FLAGS),
    re.compile(rf"\bCHANGE\s+(?:COLUMN\s+)?{_NAME}\s+{_NAME}\s+{_KIND}", _FLAGS),
)
_AFTER_TYPE = re.compile(r"\s+(?:USING|COLLATE|NOT\s+NULL|NULL|DEFAULT)\b.*", _FLAGS)
BATCH = "_alembic_tmp_"
"""What Alembic calls the new table while it rebuilds one on SQLite."""


def statements(script: str) -> Iterator[str]:
    """Yield the statements of a script, without comments and with empty literals."""
    for statement in _NOISE.sub(lambda match: "''" if match[0].startswith("'") else " ", script).split(";"):
        if statement.strip():
            yield _SPACE.sub(" ", statement).strip()


def dangers(statement: str, known: Known, version_table: str = "alembic_version") -> Iterator[str]:
    """Yield what a statement destroys, in a few words each; nothing for one that keeps all data."""
    for pattern, words in _TABLES:
        for match in pattern.finditer(statement):
            table = plain(match[1])
            ours = table.rpartition(".")[2] == version_table or table.startswith(BATCH)
            if not ours and not known.is_new(table):
                yield words.format(table)
    for pattern, words in _OTHERS:
        yield from (words.format(plain(match[1])) for match in pattern.finditer(statement))
    for match in _ALTER.finditer(statement):
        table = plain(match[1])
        if not known.is_new(table):
            yield from (f"drops the column {table}.{plain(found[1])}" for found in _COLUMN.finditer(match[2]))
            yield from _type_changes(table, match[2], known)


def _type_changes(table: str, actions: str, known: Known) -> Iterator[str]:
    found = [(match[1], match[2]) for match in _TYPE.finditer(actions)]
    found += [(match[1], match.groups()[-1]) for kind in _MYSQL_TYPE for match in kind.finditer(actions)]
    for column, new in found:
        before, after = known.type_of(table, plain(column)), _AFTER_TYPE.sub("", new).strip()
        if before is not None and loses(before, after):
            yield f"changes {table}.{plain(column)} from {before} to {after}, which may lose data"


def plain(name: str) -> str:
    """Return a name without its quotes."""
    return re.sub(r"[\"`\[\]]", "", name)


_ALIASES = {
    "CHARACTER VARYING": "VARCHAR", "CHARACTER": "CHAR", "INT": "INTEGER", "INT4": "INTEGER", "INT8": "BIGINT",
    "INT2": "SMALLINT", "DECIMAL": "NUMERIC", "DOUBLE": "DOUBLE PRECISION", "FLOAT8": "DOUBLE PRECISION",
    "BOOL": "BOOLEAN", "TIMESTAMP WITHOUT TIME ZONE": "TIMESTAMP", "TIMESTAMPTZ": "TIMESTAMP WITH TIME ZONE",
    "NVARCHAR": "VARCHAR", "DATETIME": "TIMESTAMP", "JSONB": "JSON",
}  # fmt: skip
_WHOLE = {"TINYINT": 1, "SMALLINT": 2, "MEDIUMINT": 3, "INTEGER": 4, "BIGINT": 8}
_RANKS = {**_WHOLE, "REAL": 4, "FLOAT": 8, "DOUBLE PRECISION": 8}
_INTEGERS = tuple(_WHOLE)
_ANY_LENGTH = 10**9
_LENGTHS = {"TINYTEXT": 255, "TEXT": _ANY_LENGTH, "MEDIUMTEXT": _ANY_LENGTH + 1, "LONGTEXT": _ANY_LENGTH + 2}
"""Which holds more: MySQL's TEXT is one of four, PostgreSQL's and SQLite's the only one."""

_TEXTS = ("VARCHAR", "CHAR", *_LENGTHS)


def loses(before: str, after: str) -> bool:
    """Tell whether values of type *before* may not fit *after*; what is not known to fit does not."""
    (old, old_size), (new, new_size) = _parsed(before), _parsed(after)
    if old in _TEXTS and new in _TEXTS:
        return _length(old, old_size) > _length(new, new_size)
    if new in _TEXTS and new != "CHAR" and not new_size:
        return False  # everything has a text
    if new == "NUMERIC" and (old == "NUMERIC" or old in _INTEGERS):
        return bool(new_size) and (old in _INTEGERS or _numeric_loses(old_size, new_size))
    if old in _RANKS and new in _RANKS and (old in _INTEGERS) == (new in _INTEGERS):
        return _RANKS[old] > _RANKS[new]
    return (old, old_size) != (new, new_size)


def _parsed(kind: str) -> tuple[str, tuple[int, ...]]:
    sizes = tuple(int(number) for number in re.findall(r"\d+", "".join(re.findall(r"\(([^)]*)\)", kind))))
    name = _SPACE.sub(" ", re.sub(r"\([^)]*\)", " ", kind)).strip().upper()
    if name == "TINYINT" and sizes == (1,):
        return "BOOLEAN", ()  # which is what MySQL makes of it
    name = _ALIASES.get(name, name)
    return name, () if name.partition(" ")[0] in _INTEGERS else sizes  # of integers it is only how they are shown


def _length(name: str, size: tuple[int, ...]) -> int:
    if name == "CHAR":
        return size[0] if size else 1
    return size[0] if size else _LENGTHS.get(name, _ANY_LENGTH)


def _numeric_loses(old: tuple[int, ...], new: tuple[int, ...]) -> bool:
    if not old:
        return True
    (digits, scale), (new_digits, new_scale) = (*old, 0)[:2], (*new, 0)[:2]
    return new_scale < scale or new_digits - new_scale < digits - scale
