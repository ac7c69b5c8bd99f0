"""What is worth watching for who guards this service: stable names, and few lines however many attempts."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping

from flask_prod.core.component import Event

PREFIX = "security."

SECURITY_EVENTS: Mapping[str, str] = {
    "security.sign_in_failed": "Somebody gave a wrong password or an account that is not there.",
    "security.token_refused": "A token was sent that is wrong, expired or taken back.",
    "security.access_denied": "Somebody known asked for what is not theirs.",
    "security.host_refused": "The Host header named none of ALLOWED_HOSTS, or was no host name.",
    "security.origin_refused": "A browser asked on behalf of another site, which is none of ALLOWED_ORIGINS.",
    "security.plaintext_refused": "A program came by plain HTTP, with credentials or for JSON, and got 403.",
    "security.limit_breached": "A client exceeded a rate limit.",
}
"""Name -> when it is written. Alarms rely on these names: they are added to, never changed."""

MOST_LINES = 30
"""Lines of one name in a minute and process; a scanner must not fill the disk."""

_MINUTE = 60.0
_MOST_NAMES = 100
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}(\.[a-z0-9_]{1,40}){0,3}", re.ASCII)


def security_event(name: str, message: str = "", severity: str = "warning", **fields: object) -> Event:
    """Return the event `security.NAME`; ValueError for a name that is no stable one (`sign_in_failed`)."""
    full = PREFIX + name.removeprefix(PREFIX)
    if not _NAME.fullmatch(full.removeprefix(PREFIX)):
        raise ValueError(f"{name!r} is not a name for an event: use lower-case words such as sign_in_failed.")
    return Event(full, message or SECURITY_EVENTS.get(full, name), severity, fields)


class Sparing:
    """Lets `MOST_LINES` lines of each name through per minute, and counts those it keeps back."""

    def __init__(self, most: int = MOST_LINES) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._seen: dict[str, int] = {}
        self._until = 0.0

    def after_fork(self) -> None:
        """Renew the lock, which another thread of the parent may have held."""
        self._lock = threading.Lock()

    def takes(self, name: str, now: float) -> tuple[bool, Mapping[str, int]]:
        """Tell whether a line of *name* may be written, and what the minute that just ended kept back."""
        with self._lock:
            held_back = self._turn(now)
            if name not in self._seen and len(self._seen) >= _MOST_NAMES:
                name = PREFIX + "other"
            count = self._seen[name] = self._seen.get(name, 0) + 1
            return count <= self._most, held_back

    def ended(self, now: float) -> Mapping[str, int]:
        """Return name -> lines kept back, once after a minute has ended."""
        if not self._seen or now < self._until:
            return {}
        with self._lock:
            return self._turn(now)

    def _turn(self, now: float) -> Mapping[str, int]:
        if now < self._until:
            return {}
        held_back = {name: count - self._most for name, count in self._seen.items() if count > self._most}
        self._seen = {}
        self._until = now + _MINUTE
        return held_back
