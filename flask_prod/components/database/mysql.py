"""What MySQL and MariaDB mean by the numbers of their errors: their drivers know few classes."""

from __future__ import annotations

from typing import Any

TOO_LONG = frozenset({1969, 3024})
"""MariaDB's max_statement_time and MySQL's max_execution_time are over."""

LOCKED = frozenset({1205})
"""innodb_lock_wait_timeout is over."""

CONFLICT = frozenset({1213})
"""A deadlock, of which this transaction is the victim."""

REFUSED = frozenset({1040, 1044, 1045, 1049, 1129, 1130, 1203, 1226, 1698, 3118, 4151})
"""The server lets nobody in: too many connections, of all or of this user, or the address has the wrong user,
password or database. Each comes while a connection is opened."""

_OPTION = 1290
"""The server runs with an option that forbids it."""


def number_of(error: BaseException | None) -> int:
    """Return the number of an error of such a driver, 0 for what others say."""
    first = error.args[0] if error is not None and error.args else 0
    return first if isinstance(first, int) else 0


def is_read_only(error: Any) -> bool:
    """Tell whether an error says that the server takes no changes now."""
    return number_of(error) == _OPTION and "read-only" in str(error.args[-1])  # another option: secure-file-priv
