"""What has been told already, kept where all processes of the host see it: a worker that dies is not forgotten."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep

import msgspec

from .rate import Episode

_MOST = 200
_FORGOTTEN = 7 * 86400.0
"""Seconds after which an episode nobody has told of is none: a week."""

_LONGEST = 1 << 20
_TRIES, _PAUSE = 20, 0.002


class Board:
    """Episodes by name, in a file of the run directory; in this process alone where there is none."""

    def __init__(self, folder: Callable[[], Path | None]) -> None:
        self._folder = folder
        self._own: dict[str, Episode] = {}

    @contextmanager
    def open(self, now: float) -> Iterator[dict[str, Episode]]:
        """Give all episodes to read and change, while no other process does."""
        file = self._lock()
        if file is None:
            yield self._own
            return
        try:
            before = os.pread(file, _LONGEST, 0)
            known = _parse(before)
            yield known
            after = _encode(known, now)
            if after != before:
                os.pwrite(file, after, 0)
                os.ftruncate(file, len(after))
        except OSError:
            return  # the disk is full: the alert may come twice
        finally:
            os.close(file)

    def _lock(self) -> int | None:
        """Return the open file, None where it cannot be had at once: nobody waits for a process that hangs."""
        folder = self._folder()
        if folder is None:
            return None
        try:
            file = os.open(folder / "alerts.json", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:
            return None
        for _ in range(_TRIES):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                sleep(_PAUSE)
            else:
                return file
        os.close(file)
        return None


def _parse(text: bytes) -> dict[str, Episode]:
    """Return what is written; nothing when a process died while it wrote."""
    try:
        return msgspec.json.decode(text, type=dict[str, Episode])
    except msgspec.DecodeError:
        return {}


def _encode(known: dict[str, Episode], now: float) -> bytes:
    lasting = {name: one for name, one in known.items() if one.open and one.told > now - _FORGOTTEN}
    return msgspec.json.encode(dict(list(lasting.items())[-_MOST:]))
