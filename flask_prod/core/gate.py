"""Who may see an operations endpoint: whoever sends its token, and nobody where there is none."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from .component import Event
from .values import Secret

MOST = 2
"""Tokens of one header that are looked at: as many as a setting has while one replaces the other."""


def tokens_of(token: Secret) -> list[str]:
    """Return the tokens that one setting holds; the first is the one to send."""
    return [one.strip() for one in token.reveal().split(",") if one.strip()]


class Gate:
    """Compares what a caller sends with the tokens of one setting, in a time that tells nothing about them.

    The setting may hold two tokens separated by a comma, so that one can be replaced without a moment at which a
    caller is refused. A caller may send two likewise: who reads the same file or secret and knows no commas
    (Prometheus, a collector) sends it whole. A wrong one is a `security.token_refused` event.
    """

    def __init__(self, key: str, token: Secret, emit: Callable[[Event], None]) -> None:
        self._key = key
        self._tokens = [one.encode() for one in tokens_of(token)]
        self._emit = emit

    def admits(self, authorization: str) -> bool:
        """Tell whether *authorization*, the header `Authorization: Bearer ...`, has a token of ours."""
        scheme, _, token = authorization.partition(" ")
        if not self._tokens or scheme.lower() != "bearer":
            return False
        given = [one.strip() for one in token.encode("latin-1", "replace").split(b",", MOST)[:MOST]]
        right = False
        for one in self._tokens:  # all of them: which one was right shall not show in the time either
            for sent in given:
                right |= hmac.compare_digest(sent, one)
        if not right:
            self._emit(Event("security.token_refused", f"A wrong {self._key} was sent.", "warning"))
        return right
