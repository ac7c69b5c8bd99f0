"""What users hold: a way to say who a caller is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

KeyT = TypeVar("KeyT", bound=Callable[[], object])


class UsageFace:
    """`prod.usage`: names the callers of `flask prod usage`."""

    def __init__(self) -> None:
        self.namer: Callable[[], object] | None = None

    def key(self, function: KeyT) -> KeyT:
        """Let *function* name the caller, in the request and after the view: the id of its key, or None.

        Return the id of a key, never the key: it is stored and shown.
        """
        self.namer = function
        return function
