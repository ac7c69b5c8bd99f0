"""Worker processes: bound to their parent's life, and what they share with it."""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import signal
import struct
import sys
import time

_PR_SET_PDEATHSIG = 1


def die_with_parent(number: signal.Signals, parent: int) -> None:
    """Ask the kernel to send *number* to this process when *parent* dies; Linux only, elsewhere nothing.

    Compared by id, since the parent of a process in a container may well be number 1.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number))
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


_ORDERS = struct.Struct("Q")
_WATCH = struct.Struct("dQ")
_SLOT = struct.Struct("QddQQddd")
_LEAF = 64
"""Bytes of a slot: no two processes write to the same line of the processor's cache."""

STARTING, SERVING, AWAY, STOPPING = range(4)
"""How a supervisor fares: AWAY is its source of jobs, and STOPPING goes on to its end."""


class Board:
    """Memory that the supervisor shares with its children: orders for all of them, and a slot for each.

    Every number has one writer. They are not written at once, so the supervisor acts on what it saw twice.
    """

    def __init__(self, size: int) -> None:
        self._memory = mmap.mmap(-1, _LEAF * (size + 1))
        self.slots = [Slot(self._memory, _LEAF * (place + 1)) for place in range(size)]

    @property
    def closed(self) -> int:
        """A bit for each queue from which nothing is to be taken, in the order of the worker's queues."""
        return int(_ORDERS.unpack_from(self._memory)[0])

    @closed.setter
    def closed(self, bits: int) -> None:
        _ORDERS.pack_into(self._memory, 0, bits)

    def watch(self) -> tuple[float, int]:
        """Return when the supervisor gave its last sign of life, in monotonic seconds, and how it fares."""
        beat, stage = _WATCH.unpack_from(self._memory, _ORDERS.size)
        return beat, stage

    def beat(self, stage: int) -> None:
        """Give the supervisor's sign of life."""
        _WATCH.pack_into(self._memory, _ORDERS.size, time.monotonic(), stage)


class Slot:
    """What one child says of itself; times are `time.monotonic` seconds, which all processes share.

    `born` is when it was forked, 0 while nobody has the place, and `seen` its last sign of life between two jobs.
    """

    def __init__(self, memory: mmap.mmap, offset: int) -> None:
        self._memory = memory
        self._offset = offset
        self.attempt = 0
        self.began = 0.0
        self.limit = 0.0
        self.jobs = 0
        self.failed = 0
        self.busy = 0.0
        self.born = 0.0
        self.seen = 0.0

    def publish(self) -> None:
        """Let the supervisor see what this child has noted, and that it lives."""
        self.seen = time.monotonic()
        self._write()

    def look(self) -> None:
        """See what the child has published."""
        found = _SLOT.unpack_from(self._memory, self._offset)
        self.attempt, self.began, self.limit, self.jobs, self.failed, self.busy, self.born, self.seen = found

    def clear(self) -> None:
        """Begin anew, for another child."""
        self.attempt = self.jobs = self.failed = 0
        self.began = self.limit = self.busy = self.seen = 0.0
        self.born = time.monotonic()
        self._write()

    def leave(self) -> None:
        """Note that nobody has the place."""
        self.born = self.began = 0.0
        self._write()

    def _write(self) -> None:
        _SLOT.pack_into(
            self._memory, self._offset,
            self.attempt, self.began, self.limit, self.jobs, self.failed, self.busy, self.born, self.seen,
        )  # fmt: skip


def memory_held() -> int:
    """Return the bytes of memory that are this process's own: what it shares with its parent does not count."""
    try:
        with open("/proc/self/statm", "rb") as file:
            _, resident, shared, *_ = file.read().split()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return (int(resident) - int(shared)) * resource.getpagesize()
