"""Canary secrets, and the search for them in every form in which they could come out."""

from __future__ import annotations

import base64
import gzip
import re
import secrets
import zlib
from collections.abc import Iterator, Mapping


def canaries() -> dict[str, str]:
    """Return a dozen secrets by name; those that people choose have characters that addresses must quote."""
    of_requests = ("password", "token", "api_key", "session", "bearer", "reset")
    of_settings = ("dsn", "database", "redis", "secret_key", "metrics", "health", "otlp")
    made = {name: f"{name[0]}{secrets.token_hex(12)}" for name in of_requests + of_settings}
    made["password"] = f"p4/{secrets.token_hex(8)}+x =ü"
    made["card"] = card()
    return made


def card() -> str:
    """Return a card number of a test range that passes the check of its digits."""
    digits = [4, 2, *(secrets.randbelow(10) for _ in range(13))]
    doubled = [d if i % 2 else d * 2 - 9 * (d > 4) for i, d in enumerate(digits)]
    return "".join(map(str, [*digits, -sum(doubled) % 10]))


def hits(planted: Mapping[str, str], outputs: Mapping[str, bytes]) -> list[str]:
    """Return where which canary came out, and around which words."""
    found = []
    for where, output in outputs.items():
        for name, secret in planted.items():
            for form in set(forms(secret)):
                at = output.find(form)
                if at >= 0:
                    found.append(f"{name} in {where}: ...{output[max(0, at - 80) : at + len(form) + 20]!r}")
                    break
    return found


def forms(secret: str) -> Iterator[bytes]:
    """Yield what gives *secret* away however it is written: every quoted form has its longest plain run."""
    core = max(re.split(r"[^a-z0-9]+", secret), key=len).encode()
    yield from (core, core.hex().encode())
    for shift in range(3):
        # Base64 at each alignment, without the first and the last group, which the neighbours have a part in.
        yield base64.b64encode(b"\0" * shift + core)[4:-4]


def unpacked(data: bytes) -> bytes:
    """Return *data* with what it holds compressed."""
    for unpack in (gzip.decompress, zlib.decompress):
        try:
            return data + unpack(data)
        except (OSError, zlib.error, EOFError):
            continue
    return data
