"""What gunicorn's workers tell their master: that they serve, or that they have served enough."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import suppress

READY, WORN = b"R", b"W"

_MESSAGE = struct.Struct("<cI")
_AT_ONCE = 4096 // _MESSAGE.size * _MESSAGE.size
"""Bytes that are read together: whole messages, since each is written in one piece."""


class Wire:
    """A pipe from all workers to the master; nobody ever waits at it."""

    def __init__(self) -> None:
        self._ear, self._mouth = os.pipe()
        for end in (self._ear, self._mouth):
            os.set_blocking(end, False)

    def tell(self, what: bytes) -> None:
        """Say something of this process; a message that finds no room is lost."""
        with suppress(OSError):
            os.write(self._mouth, _MESSAGE.pack(what, os.getpid()))

    def heard(self) -> Iterator[tuple[bytes, int]]:
        """Yield what was said since, each with the process that said it."""
        with suppress(BlockingIOError):
            while data := os.read(self._ear, _AT_ONCE):
                yield from _MESSAGE.iter_unpack(data)
