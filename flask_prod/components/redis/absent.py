"""What stands for Redis where there is no REDIS_URL: it says so, and the library stays unread."""

from __future__ import annotations

from typing import Any

from flask_prod.core.errors import NotInstalled


class NoRedis:
    """Fulfils `core.ports.RedisPort`; every use raises NotInstalled, as `configured` has told."""

    configured = False
    degraded = False
    watchable = False
    cause = ""

    def __init__(self, namespace: str) -> None:
        self._prefix = namespace + ":"

    def key(self, *parts: str) -> str:
        """Return a key in this service's namespace: `shop:production:limit:...`."""
        return self._prefix + ":".join(parts)

    def client(self, *_: Any, **__: Any) -> Any:
        """Refuse: NotInstalled."""
        raise NotInstalled("There is no REDIS_URL; set it to redis://host:6379/0 to use Redis.")

    attempt = ask = pipeline = lock = unlock = prolong = listen = watch = ping = client
