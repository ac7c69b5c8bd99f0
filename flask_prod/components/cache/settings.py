"""The settings of the cache room."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from flask_prod.core.settings import Section
from flask_prod.core.values import Duration, Size


class CacheSettings(Section, frozen=True, kw_only=True):
    """Where cached pages and values live, for how long, and how much room they may take."""

    prefix: ClassVar[str] = "CACHE_"
    keys: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "ttl": ("CACHE_TTL", "CACHE_DEFAULT_TIMEOUT"),
        "memory_entries": ("CACHE_MEMORY_ENTRIES", "CACHE_THRESHOLD"),
    }
    library_keys: ClassVar[tuple[str, ...]] = (
        "CACHE_TYPE", "CACHE_KEY_PREFIX", "CACHE_HASH_METHOD", "CACHE_SOURCE_CHECK", "CACHE_ENABLE_SIGNALS",
        "CACHE_IGNORE_ERRORS", "CACHE_NO_NULL_WARNING", "CACHE_SERIALIZER", "CACHE_OPTIONS", "CACHE_ARGS",
        "CACHE_FILE_HASH_METHOD", "CACHE_REDIS_*", "CACHE_MEMCACHED_*",
    )  # fmt: skip

    backend: Literal["redis", "memory", "file", "tiered"] | None = None
    """Where entries live: redis, memory, file, or tiered (memory over Redis); if empty, redis where there is a
    REDIS_URL, else memory."""

    ttl: Duration = 300.0
    """How long an entry lives that names no time of its own; 0 is for ever."""

    dir: str = ""
    """The folder of the file back end; if empty, a folder called cache in the instance folder."""

    memory_size: Size = 64 * 1024**2
    """How many bytes memory (of each process) and file back ends hold before the longest unused entries go."""

    memory_entries: Annotated[int, Meta(ge=1)] = 10_000
    """How many entries they hold at most."""

    max_object: Size = 1024**2
    """The largest entry in bytes; a larger one is not stored."""

    wait: Duration = 5.0
    """How long a caller waits for another one that computes the same entry, before it computes for itself."""

    stale: Duration = 0.0
    """How long after its end an entry is still served while one caller computes it anew."""

    stale_on_error: Duration = 0.0
    """How long after its end an entry is still served when computing it anew fails."""

    jitter: Annotated[float, Meta(ge=0, le=0.9)] = 0.1
    """The part of a computed entry's time to live that chance may take away, so that not all end together."""

    early: Annotated[float, Meta(ge=0, le=10)] = 1.0
    """How eagerly an entry is computed anew before its end, in times that its computation takes; 0 is never."""

    status: bool = True
    """Whether answers of cached routes carry `Cache-Status` (RFC 9211): hit, stale, or why not."""

    client_reload: bool = False
    """Whether a client that sends `Cache-Control: no-cache` gets a newly computed page; strangers could then
    compute each page again and again."""

    ignore_cookies: tuple[str, ...] = ("_ga*", "_gid", "_gat*", "_gcl_*", "_fbp", "__utm*", "_hj*", "_pk_*")
    """Cookies that no page depends on, `*` at the end for a prefix; a request with any other is not cached."""

    def problems(self) -> Iterator[str]:
        """Yield limits that leave no room for a single entry."""
        if self.max_object > self.memory_size:
            yield "CACHE_MAX_OBJECT must not be larger than CACHE_MEMORY_SIZE."
