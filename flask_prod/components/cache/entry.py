"""What lies in a store: a payload, its times and the stamps of its tags; and how that looks as bytes.

    FP2 <kind> <crc32> <created> <expires> <stale until> <cost> <length of tags> <tags> <payload>

The check sum covers the key and all that follows it: it tells what was cut short, damaged, or answered to another
question (a connection out of step returns another key's entry: another user's page). It is no protection against
somebody who may write to the store; that no code can run is, since entries are JSON and never pickles.
"""

from __future__ import annotations

import struct
import zlib
from typing import TypeAlias

import msgspec

Stamps: TypeAlias = tuple[tuple[str, int], ...]
"""Names of tags, each with the version that it had when the entry's computation began."""

_MAGIC = b"FP2"
_CHECKED = struct.Struct("<dddfH")
_HEAD = struct.Struct("<3scI")
_START = _HEAD.size + _CHECKED.size
_TAGS = msgspec.msgpack.Decoder(Stamps)
_MOST_TAG_BYTES = 65_535


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One entry; times are `time.time` seconds, 0 is never.

    Until `expires` it is fresh. From then until `stale_until` a store keeps it, for those who may have it stale.
    `cost` is how many seconds its computation took. `tier` says where it was found and is not stored.
    """

    kind: bytes
    payload: bytes
    created: float = 0.0
    expires: float = 0.0
    stale_until: float = 0.0
    cost: float = 0.0
    tags: Stamps = ()
    tier: str = ""

    def is_fresh(self, now: float) -> bool:
        """Tell whether its time to live has not ended."""
        return not self.expires or now < self.expires

    def is_over(self, now: float) -> bool:
        """Tell whether it may not even be served stale."""
        return bool(self.stale_until) and now >= self.stale_until

    def lifetime(self, now: float) -> float:
        """Return for how many seconds a store keeps it; 0 is for ever."""
        return max(0.001, self.stale_until - now) if self.stale_until else 0.0


def pack(key: str, entry: Entry) -> bytes:
    """Return *entry* as bytes that can be read under *key* only; ValueError when it has too many tags."""
    tags = msgspec.msgpack.encode(entry.tags) if entry.tags else b""
    if len(tags) > _MOST_TAG_BYTES:
        raise ValueError("An entry has at most 64 KB of tags.")
    times = _CHECKED.pack(entry.created, entry.expires, entry.stale_until, entry.cost, len(tags))
    checked = b"%b%b%b" % (times, tags, entry.payload)
    check = zlib.crc32(checked, zlib.crc32(entry.kind, zlib.crc32(key.encode())))
    return _HEAD.pack(_MAGIC, entry.kind, check) + checked


def unpack(key: str, data: bytes, tier: str = "") -> Entry | None:
    """Return the entry, None for bytes that are no entry of this key and version."""
    if len(data) < _START or data[:3] != _MAGIC:
        return None
    _magic, kind, check = _HEAD.unpack_from(data)
    checked = memoryview(data)[_HEAD.size :]
    if check != zlib.crc32(checked, zlib.crc32(kind, zlib.crc32(key.encode()))):
        return None
    created, expires, stale_until, cost, length = _CHECKED.unpack_from(data, _HEAD.size)
    end = _START + length
    try:
        tags = _TAGS.decode(data[_START:end]) if length else ()
    except msgspec.MsgspecError:
        return None
    return Entry(kind, data[end:], created, expires, stale_until, cost, tags, tier)
