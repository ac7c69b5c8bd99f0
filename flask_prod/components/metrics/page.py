"""Where values lie: a file that is mapped into memory, or a list where there is no file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from prometheus_client.mmap_dict import MmapedDict


class Numbers(Protocol):
    """Numbers to add to in place, with no call in between: a mapped file's, or a list."""

    def __getitem__(self, index: int, /) -> float:
        """Return a number."""

    def __setitem__(self, index: int, value: float, /) -> None:
        """Replace a number."""


class Page(MmapedDict):
    """A file of values whose space is reserved on the disk; OSError when there is none.

    Writing to a mapped page that the disk has no room for would kill the process (SIGBUS).
    """

    def __init__(self, path: Path) -> None:
        with open(path, "ab") as file:
            os.posix_fallocate(file.fileno(), 0, max(file.tell(), 1 << 16))
        try:
            super().__init__(str(path))  # type: ignore[no-untyped-call]  # prometheus_client is annotated in part
        except BaseException:
            self._f.close()
            raise
        self._numbers = self._cast()

    def _cast(self) -> memoryview[float]:
        # One number is written by one copy of 8 aligned bytes: a reader sees the old one or the new one.
        return memoryview(self._m)[: self._capacity // 8 * 8].cast("d")

    def _init_value(self, key: str) -> None:
        # The library doubles the file until the entry fits; an entry's overhead is below 32 bytes.
        needed = self._used + len(key.encode()) + 32
        capacity = self._capacity
        while needed > capacity:
            capacity *= 2
        grows = capacity > self._capacity
        if grows:
            os.posix_fallocate(self._f.fileno(), 0, capacity)
        super()._init_value(key)  # type: ignore[no-untyped-call]  # prometheus_client is annotated in part
        if grows:
            self._numbers = self._cast()  # numbers of the smaller one stay good: both map the same file

    def place(self, key: str) -> tuple[Numbers, int]:
        """Return where the value of *key* lies, its timestamp right behind it, making room for it first."""
        if key not in self._positions:
            self._init_value(key)
        return self._numbers, self._positions[key] // 8

    def close(self) -> None:
        """Let go of the file; whoever still holds its numbers must not use them."""
        self._numbers.release()
        super().close()  # type: ignore[no-untyped-call]  # prometheus_client is annotated in part


class Memory:
    """Values of this process alone."""

    def __init__(self) -> None:
        self._numbers: list[float] = []
        self._positions: dict[tuple[str, str], int] = {}

    def place(self, kind: str, key: str) -> tuple[Numbers, int]:
        """Return where the value of *key* lies."""
        position = self._positions.get((kind, key))
        if position is None:
            position = self._positions[kind, key] = len(self._numbers)
            self._numbers += (0.0, 0.0)
        return self._numbers, position

    def take(self, kind: str, key: str) -> Sequence[float]:
        """Return a value and its timestamp, and forget them; nothing where there is none."""
        position = self._positions.pop((kind, key), None)
        return () if position is None else self._numbers[position : position + 2]

    def clear(self) -> None:
        """Forget all; whoever holds the numbers may go on adding to them in vain."""
        self._numbers = []
        self._positions.clear()
