"""The same counters in Redis: all limits of a request in one round trip."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from redis.exceptions import NoScriptError

from flask_prod.core.ports import RedisPort

from .engine import Row, Verdict
from .policy import Policy

SCRIPT = Path(__file__).with_name("consume.lua").read_bytes()
SHA = hashlib.sha1(SCRIPT, usedforsecurity=False).hexdigest()
"""The name under which Redis keeps the script."""


class SharedEngine:
    """Counts in Redis for all processes; raises Unavailable while it is away."""

    def __init__(self, redis: RedisPort) -> None:
        self._redis = redis

    def load(self) -> None:
        """Give Redis the script, so that the first request needs no second round trip."""
        self._redis.attempt(lambda client: client.script_load(SCRIPT))

    def consume(self, keys: Sequence[bytes | str], policies: Sequence[Policy], packed: bytes) -> Verdict:
        """Count one request against all of its limits, or only look; `packed` comes from `pack`."""

        def call(client: Any) -> Verdict:
            try:
                reply = client.execute_command("EVALSHA", SHA, len(keys), *keys, packed)
            except NoScriptError:  # the server was restarted
                reply = client.execute_command("EVAL", SCRIPT, len(keys), *keys, packed)
            return unpack(reply, policies)

        return self._redis.attempt(call)

    def forget(self, keys: Sequence[bytes | str]) -> int:
        """Forget these counters and return how many there were."""
        return self._redis.attempt(lambda client: int(client.unlink(*keys)))


def pack(policies: Sequence[Policy], *, count: bool = True, now: int = 0) -> bytes:
    """Return the policies as the script takes them; once per endpoint, since it never changes.

    `now` is in milliseconds; 0 takes the time of the server, which all processes share.
    """
    numbers = [now, int(count)]
    for policy in policies:
        numbers += (policy.points, policy.window, policy.block, policy.cost)
    return " ".join(map(str, numbers)).encode()


def unpack(reply: bytes | str, policies: Sequence[Policy]) -> Verdict:
    """Read the script's answer; ValueError if it is none (damaged on its way)."""
    if not isinstance(reply, bytes | str):
        raise ValueError("not an answer of the script")
    refused, now, *rest = [int(number) for number in reply.split()]
    if len(rest) != 4 * len(policies) or not 0 <= refused <= len(policies):
        raise ValueError("not an answer of the script")
    rows = [Row(*rest[i : i + 4]) for i in range(0, len(rest), 4)]
    return Verdict(policies, now, refused, rows)
