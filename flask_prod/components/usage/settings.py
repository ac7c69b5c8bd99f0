"""What can be set about usage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta

from flask_prod.core.settings import Section
from flask_prod.core.values import Duration


class UsageSettings(Section, frozen=True, kw_only=True):
    """What is remembered about who uses which route, and for how long."""

    prefix = "USAGE_"

    enabled: bool = True
    """Count requests by route and caller for `flask prod usage`."""

    keep: Duration = 30 * 86400.0
    """How long the hours are kept."""

    key_header: str = "X-API-Key"
    """The header with a caller's API key, of which a fingerprint is kept; empty for none."""

    clients: bool = False
    """Count by network address too; addresses are personal data in many places, so you decide."""

    max_callers: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    """Combinations of route and caller kept per hour; what comes later is counted under the caller `(other)`."""

    file: str = ""
    """The SQLite file that takes the place of Redis where there is none; `usage.sqlite3` in RUN_DIR if empty."""

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the time of keeping."""
        if self.keep < 3600:
            yield f"USAGE_KEEP must be one hour or more, such as 30d, not {self.keep:g} s."
