"""How a server is set up that jobs are kept on: whether it forgets any, without memory or over a restart.

Asked in the background, seldom. A managed service that forbids CONFIG is asked by INFO; one that forbids that too
is not judged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import redis

_QUEUES = "rq:queues"
"""Where RQ lists the queues of a server."""

_KEEPS = "noeviction"


class Review:
    """What was found at the last look: `warnings` are sentences, `data` what they rest on."""

    def __init__(self) -> None:
        self.warnings: tuple[str, ...] = ()
        self.data: Mapping[str, object] = {}

    def look(self, client: redis.Redis, has_jobs: bool) -> None:
        """Look again; raises what redis-py raises. *has_jobs* is true when this process is known to use them."""
        if not has_jobs and not client.exists(_QUEUES):
            self.warnings, self.data = (), {}
            return
        facts = _facts(client)
        self.warnings = tuple(_warnings(facts))
        self.data = facts


def _facts(client: redis.Redis) -> dict[str, object]:
    """Return what is known of `maxmemory`, `policy`, `aof` and `rdb`."""
    for read in (_by_config, _by_info):
        try:
            return read(client)
        except (redis.ResponseError, KeyError):
            continue
    return {}


def _by_config(client: redis.Redis) -> dict[str, object]:
    ask: Callable[[str], Any] = client.config_get
    memory = ask("maxmemory*")
    return {
        "maxmemory": int(memory["maxmemory"]),
        "policy": memory["maxmemory-policy"],
        "aof": ask("appendonly")["appendonly"] == "yes",
        "rdb": bool(ask("save")["save"]),
    }


def _by_info(client: redis.Redis) -> dict[str, object]:
    info: Any = client.info()
    return {
        "maxmemory": int(info["maxmemory"]),
        "policy": info["maxmemory_policy"],
        "aof": bool(info["aof_enabled"]),
    }


def _warnings(facts: Mapping[str, object]) -> list[str]:
    found = []
    if facts.get("policy", _KEEPS) != _KEEPS and facts.get("maxmemory"):
        found.append(
            f"Redis drops keys when memory runs out (maxmemory-policy {facts['policy']}), and jobs are among "
            "them: set noeviction, or give the cache a server of its own."
        )
    # INFO does not say whether snapshots are on; what is not known is not warned about.
    if facts.get("aof") is False and facts.get("rdb") is False:
        found.append(
            "Redis keeps nothing over a restart (appendonly no, no save), and jobs are on it: set appendonly yes."
        )
    return found
