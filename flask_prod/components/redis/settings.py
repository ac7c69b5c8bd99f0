"""What can be set about the connection to Redis or Valkey."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Annotated, ClassVar

from msgspec import Meta

from flask_prod.core.settings import Section
from flask_prod.core.values import Duration, Secret, SecretUrl

from .address import CLUSTER, is_encrypted, parse


class RedisSettings(Section, frozen=True, kw_only=True):
    """Where Redis is, and how long a request may wait for it."""

    prefix: ClassVar[str] = "REDIS_"

    url: SecretUrl = SecretUrl("")
    """Where Redis or Valkey is: `redis://`, `rediss://` (TLS), `unix://`, or several hosts of one deployment, as
    `redis+sentinel://host,host,host/service/0` and `redis+cluster://host,host`; empty means there is none."""

    username: str = ""
    """The user (ACL), where it is not part of the address; this one wins."""

    password: Secret = Secret("")
    """The password, where it is not part of the address; this one wins."""

    db: Annotated[int, Meta(ge=0)] | None = None
    """The number of the database; empty takes it from the address, 0 where that names none."""

    pool_size: Annotated[int, Meta(ge=1)] = 64
    """The most connections of one process and purpose; a request that finds none waits as for a connect."""

    connect_timeout: Duration = 0.1
    """How long a request waits for a connection, in seconds."""

    read_timeout: Duration = 0.1
    """How long a request waits for an answer, in seconds."""

    max_retries: Annotated[int, Meta(ge=0, le=3)] = 1
    """How often a request tries again on a dropped connection; never after a timeout."""

    tls_ca: str = ""
    """The certificate authority of a `rediss://` server, as the path of a PEM file or its text; empty takes the
    system's."""

    tls_cert: str = ""
    """The path of this client's own certificate (PEM), where the server asks for one."""

    tls_key: str = ""
    """The path of the key of that certificate."""

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the address, without repeating it, and time limits that allow nothing."""
        if self.url:
            yield from self._of_address()
        for key, seconds in (("CONNECT", self.connect_timeout), ("READ", self.read_timeout)):
            if seconds == 0:
                yield f"REDIS_{key}_TIMEOUT must be more than 0 seconds; 100ms is the default."

    def _of_address(self) -> Iterator[str]:
        text = self.url.reveal().strip()
        if not text.lower().startswith(_SCHEMES):
            yield (
                "REDIS_URL must start with redis://, rediss:// (TLS), unix://, redis+sentinel:// or redis+cluster://."
            )
            return
        try:
            address = parse(text)
        except ValueError:
            # The reason is left out: a password with an unescaped slash would be quoted in it.
            yield (
                f"REDIS_URL cannot be understood; write {_example(text)}, with / # @ in the password "
                "percent-encoded, or give the password as REDIS_PASSWORD."
            )
            return
        if address.kind == CLUSTER and self.db:
            yield "REDIS_DB must be 0 or empty: a cluster has one database."
        yield from self._of_files(is_encrypted(address))

    def _of_files(self, encrypted: bool) -> Iterator[str]:
        given = {"CA": self.tls_ca, "CERT": self.tls_cert, "KEY": self.tls_key}
        for key, value in given.items():
            is_text = key == "CA" and "-----BEGIN" in value
            if value and not encrypted:
                yield f"REDIS_TLS_{key} needs a REDIS_URL that starts with rediss://: this one does not encrypt."
            elif value and not is_text and not os.access(value, os.R_OK):
                yield f"REDIS_TLS_{key} must be the path of a PEM file that this process may read."
        if self.tls_key and not self.tls_cert:
            yield "REDIS_TLS_KEY needs REDIS_TLS_CERT, the certificate that belongs to the key."


_SCHEMES = (
    "redis://", "rediss://", "valkey://", "valkeys://", "unix://",
    "redis+sentinel://", "rediss+sentinel://", "valkey+sentinel://", "valkeys+sentinel://",
    "redis+cluster://", "rediss+cluster://", "valkey+cluster://", "valkeys+cluster://",
)  # fmt: skip


def _example(text: str) -> str:
    if "+sentinel" in text:
        return "redis+sentinel://:password@host:26379,host:26379/service/0"
    if "+cluster" in text:
        return "redis+cluster://:password@host:6379,host:6379"
    return "redis://:password@host:6379/0"
