"""The settings of the backups room."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import msgspec

from flask_prod.core.settings import Section
from flask_prod.core.values import Duration, Secret

from .retention import PERIODS

SHORTEST_KEY = 16
"""Characters; scrypt slows guesses down, it does not make a short word long."""


_KEEP = {"last": 3, "daily": 7, "weekly": 4}


class BackupSettings(Section, frozen=True, kw_only=True):
    """Where backups go, how long they stay, and who can read them."""

    prefix: ClassVar[str] = "BACKUP_"

    url: str = ""
    """A directory, or `s3://bucket/prefix`; if empty, there are no backups."""

    keep: Mapping[str, int] = msgspec.field(default_factory=lambda: dict(_KEEP))
    """How many backups stay: the last ones, and the newest of so many hours, days, weeks, months or years."""

    key: Secret = Secret("")
    """Encrypts and signs backups; whoever loses it cannot restore them. Needs the extra `encryption`."""

    max_age: Duration = 26 * 3600.0
    """The check warns when the last backup is older: a day, and two hours to make one; 0 never warns."""

    pg_bin: str = ""
    """The directory of pg_dump and pg_restore; if empty, the newest of PATH and /usr/lib/postgresql."""

    s3_endpoint: str = ""
    """The address of an S3-compatible server; Amazon's if empty."""

    s3_region: str = ""
    """The region of the bucket, where the server has such."""

    s3_access_key: Secret = Secret("")
    """Who writes to the bucket; if empty, boto3 looks where it always does: role, profile, AWS_ variables."""

    s3_secret_key: Secret = Secret("")
    """Proves it."""

    def problems(self) -> Iterator[str]:
        """Yield what cannot be meant."""
        unknown = [name for name in self.keep if name not in PERIODS]
        if unknown:
            yield f"BACKUP_KEEP names {', '.join(unknown)}; there are {', '.join(PERIODS)}: daily=7; weekly=4."
        elif self.keep and not any(count > 0 for count in self.keep.values()):
            yield "BACKUP_KEEP keeps nothing; leave it empty to keep all."
        if "://" in self.url and not self.url.startswith(("s3://", "file://")):
            yield "BACKUP_URL must be a directory or s3://bucket/prefix."
        if 0 < len(self.key.reveal()) < SHORTEST_KEY:
            yield f"BACKUP_KEY must have at least {SHORTEST_KEY} characters."
        if bool(self.s3_access_key) != bool(self.s3_secret_key):
            yield "BACKUP_S3_ACCESS_KEY and BACKUP_S3_SECRET_KEY belong together: set both or none."
