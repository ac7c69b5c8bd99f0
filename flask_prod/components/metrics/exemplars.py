"""Requests that stand for many: the trace that was last counted in a bucket, shared between processes.

Kept in memory and written down every few seconds, whole, under another name first: a scrape never sees half of
them, and a disk without room costs exemplars only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec
from prometheus_client.samples import Exemplar

MOST = 1000
"""Exemplars that one process remembers; the oldest goes first."""

_Written = dict[str, tuple[dict[str, str], float, float]]
_decode = msgspec.json.Decoder(_Written).decode


class Exemplars:
    """The exemplars of one process by the key of the value they were counted in."""

    def __init__(self) -> None:
        self._kept: dict[str, Exemplar] = {}
        self._changed = False

    def keep(self, key: str, exemplar: Exemplar) -> None:
        """Remember *exemplar*, the last of its kind."""
        self._kept.pop(key, None)
        self._kept[key] = exemplar
        self._changed = True
        if len(self._kept) > MOST:
            with suppress(KeyError, StopIteration, RuntimeError):  # another thread may have been as quick
                del self._kept[next(iter(self._kept))]

    def write(self, path: Path) -> None:
        """Write down what has changed; nothing where there is no room."""
        if not self._changed:
            return
        self._changed = False
        written = {
            key: (dict(e.labels), e.value, float(e.timestamp or 0.0)) for key, e in self._kept.copy().items()
        }
        draft = path.with_suffix(f".{os.getpid()}")
        with suppress(OSError):
            draft.write_bytes(msgspec.json.encode(written))
            draft.replace(path)

    def with_files(self, files: Iterable[Path]) -> dict[str, Exemplar]:
        """Return the newest of each key, of this process and of those that wrote *files*."""
        newest = self._kept.copy()
        for file in files:
            with suppress(OSError, msgspec.DecodeError):
                for key, (labels, value, timestamp) in _decode(file.read_bytes()).items():
                    known = newest.get(key)
                    if known is None or float(known.timestamp or 0.0) < timestamp:
                        newest[key] = Exemplar(labels, value, timestamp)
        return newest
