"""The kinds of value a setting can have beyond Python's own: durations, sizes, secrets."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Annotated, Any, TypeAlias
from urllib.parse import unquote, urlsplit, urlunsplit

from msgspec import Meta

DURATION = "duration"
SIZE = "size"

Duration: TypeAlias = Annotated[float, Meta(ge=0, extra={"kind": DURATION})]
"""Seconds; written `30s`, `5m`, `1h`, `7d`, `250ms` or as plain seconds."""

Size: TypeAlias = Annotated[int, Meta(ge=0, extra={"kind": SIZE})]
"""Bytes; written `512MB`, `1GB` or as plain bytes. 1 KB is 1,024 bytes."""

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)?\s*", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, None: 1.0}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMG])?I?B?\s*", re.ASCII | re.IGNORECASE)
_BYTES = {"K": 1024, "M": 1024**2, "G": 1024**3, None: 1}


def parse_duration(value: object) -> float:
    """Return seconds for `30s`, `5m`, a number, or a timedelta; ValueError for anything else."""
    if isinstance(value, bool):
        raise ValueError("not a duration")
    if isinstance(value, int | float):
        return float(value)
    if hasattr(value, "total_seconds"):
        return float(value.total_seconds())

    match = _DURATION.fullmatch(str(value))
    if match is None:
        raise ValueError("not a duration")
    return float(match[1]) * _SECONDS[match[2]]


def parse_size(value: object) -> int:
    """Return bytes for `512MB`, `1GB` or a number; ValueError for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value

    match = _SIZE.fullmatch(str(value))
    if match is None:
        raise ValueError("not a size")
    unit = match[2].upper() if match[2] else None
    return int(float(match[1]) * _BYTES[unit])


class Secret:
    """A value that is used but never shown: its text is `reveal()`, everything else is a fingerprint."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text; the only way to it."""
        return self._text

    @property
    def fingerprint(self) -> str:
        """Eight hex digits of SHA-256: tells two secrets apart, gives neither away."""
        return hashlib.sha256(self._text.encode()).hexdigest()[:8]

    def shown(self) -> str:
        """Return what may appear in a log, a page or `flask prod config`."""
        return f"secret:{self.fingerprint}"

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return f"<{self.shown()}>" if self._text else "<no secret>"

    __str__ = __repr__

    def __reduce__(self) -> Any:
        raise TypeError("a Secret is not pickled")


class SecretUrl(Secret):
    """An address whose password is secret: shown as `redis://:***@host:6379/0`, without its query values."""

    __slots__ = ()

    def shown(self) -> str:
        """Return the address with everything that could be a credential starred out."""
        try:
            parts = urlsplit(self._text)
            host = parts.hostname or ""
            port = f":{parts.port}" if parts.port else ""
        except ValueError:
            return super().shown()

        # `admin:word` has a scheme for urlsplit, and only what follows `://` is known to hold no secret but these.
        if not parts.scheme or self._text.partition("://")[0].lower() != parts.scheme:
            return super().shown()
        host = f"[{host}]" if ":" in host else host
        user = "***@" if "@" in parts.netloc else ""
        query = "***" if parts.query else ""
        return urlunsplit((parts.scheme, user + host + port, parts.path, query, ""))

    def __repr__(self) -> str:
        return f"<{self.shown()}>" if self._text else "<no address>"

    __str__ = __repr__


def secret_texts(value: object) -> Iterator[str]:
    """Yield every text that is secret in the value of a setting: of an address the whole, and its credentials."""
    for one in value if isinstance(value, tuple) else (value,):
        if isinstance(one, Secret) and one:
            yield one.reveal()
        if isinstance(one, SecretUrl):
            yield from _credentials(one.reveal())


def _credentials(url: str) -> Iterator[str]:
    """Yield password, or the key in front of a web address; a database's user name is a word like any other."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return
    if parts.password:
        yield from {parts.password, unquote(parts.password)}
    elif parts.username and parts.scheme.startswith("http"):
        yield parts.username
