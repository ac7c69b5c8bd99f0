"""What can be set about the connection to Redis or Valkey."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from msgspec import Meta
from redis.connection import parse_url

from flask_prod.core.settings import Section
from flask_prod.core.values import Duration, Secret, SecretUrl


class RedisSettings(Section, frozen=True, kw_only=True):
    """Where Redis is, and how long a request may wait for it."""

    prefix: ClassVar[str] = "REDIS_"

    url: SecretUrl = SecretUrl("")
    """Where Redis or Valkey is: `redis://`, `rediss://` (TLS) or `unix://`; empty means there is none."""

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

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the address, without repeating it, and time limits that allow nothing."""
        if self.url:
            yield from _url_problems(self.url)
        for key, seconds in (("CONNECT", self.connect_timeout), ("READ", self.read_timeout)):
            if seconds == 0:
                yield f"REDIS_{key}_TIMEOUT must be more than 0 seconds; 100ms is the default."


def plain_url(url: SecretUrl) -> str:
    """Return the address with a scheme that redis-py knows: Valkey speaks the same protocol."""
    text = url.reveal().strip()
    for scheme in ("valkey", "valkeys"):
        if text.startswith(f"{scheme}://"):
            return "redis" + text[len("valkey") :]
    return text


def _url_problems(url: SecretUrl) -> Iterator[str]:
    text = plain_url(url)
    if not text.startswith(("redis://", "rediss://", "unix://")):
        yield "REDIS_URL must start with redis://, rediss:// (TLS) or unix://."
        return
    try:
        parse_url(text)  # type: ignore[no-untyped-call]
    except ValueError:
        # The reason is left out: a password with an unescaped slash would be quoted in it.
        yield (
            "REDIS_URL cannot be understood; write redis://:password@host:6379/0, with / # @ in the password "
            "percent-encoded, or give the password as REDIS_PASSWORD."
        )
