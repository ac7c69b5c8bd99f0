"""`prod.cache.remember`: a value under a key of the caller's, computed by a function given with each call."""

from __future__ import annotations

from typing import Any

from .backend import Timeout
from .calls import Call


class RememberedCall(Call):
    """One call; nothing is decorated, since the function is another one each time."""

    def _decorate(self, timeout: Timeout) -> Any:
        return _Plain(timeout)


class _Plain:
    def __init__(self, timeout: Timeout) -> None:
        self.cache_timeout = timeout
