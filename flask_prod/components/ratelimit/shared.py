"""The same counters in Redis: all limits of a request in one round trip."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from flask_prod.core.ports import RedisPort

from .engine import COUNT, Verdict
from .policy import Policy

SCRIPT = Path(__file__).with_name("consume.lua").read_bytes()
SHA = hashlib.sha1(SCRIPT, usedforsecurity=False).hexdigest()
"""The name under which Redis keeps the script."""


_CALL = b"EVALSHA\r\n$40\r\n%s\r\n" % SHA.encode()


class Reply(msgspec.Struct, array_like=True):
    """What the script answers."""

    refused: int
    shadowed: int
    taken: int
    now: int
    rows: list[tuple[int, int, int, int]]


_REPLY = msgspec.json.Decoder(Reply)


class SharedEngine:
    """Counts in Redis for all processes; raises Unavailable while it is away."""

    def __init__(self, redis: RedisPort) -> None:
        from redis.exceptions import NoScriptError  # not imported by applications without Redis

        self._redis = redis
        self._unknown_script = NoScriptError

    def load(self) -> None:
        """Give Redis the script, so that the first request needs no second round trip."""
        self._redis.attempt(lambda client: client.script_load(SCRIPT))

    def consume(self, command: bytes, policies: Sequence[Policy]) -> Verdict:
        """Ask all the limits of one request; `command` comes from `command_for`."""

        def call(client: Any) -> Verdict:
            try:
                reply = client.ask(command)
            except self._unknown_script:  # the server was restarted
                client.script_load(SCRIPT)
                reply = client.ask(command)
            return unpack(reply, policies)

        return self._redis.attempt(call, "EVALSHA")

    def forget(self, keys: Sequence[bytes | str]) -> int:
        """Forget these counters and return how many there were."""
        return self._redis.attempt(lambda client: int(client.unlink(*keys)))


def pack(policies: Sequence[Policy], mode: int = COUNT, want: int = 1, *, now: int = 0) -> bytes:
    """Return the policies as the script takes them; once per endpoint, since it never changes.

    `now` is in milliseconds; 0 takes the time of the server, which all processes share.
    """
    numbers = [now, mode, want]
    for policy in policies:
        flags = (policy.chosen is not None) + 2 * policy.shadow
        numbers += (policy.points, policy.window, policy.block, policy.cost, flags)
    return " ".join(map(str, numbers)).encode()


def command_for(keys: Sequence[bytes], packed: bytes) -> bytes:
    """Return the whole command as it goes over the wire: once per client, since it never changes either."""
    words = (b"%d" % len(keys), *keys, packed)
    body = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
    return b"*%d\r\n$7\r\n%s%s" % (2 + len(words), _CALL, body)


def unpack(reply: object, policies: Sequence[Policy]) -> Verdict:
    """Read the script's answer; ValueError if it is none (damaged on its way)."""
    if not isinstance(reply, bytes):
        raise ValueError("not an answer of the script")
    try:
        said = _REPLY.decode(reply)
    except msgspec.DecodeError:
        raise ValueError("not an answer of the script") from None
    if len(said.rows) != len(policies) or not 0 <= said.refused <= len(policies) or said.taken < 1:
        raise ValueError("not an answer of the script")
    return Verdict(policies, said.now, said.refused, said.rows, said.shadowed, said.taken)
