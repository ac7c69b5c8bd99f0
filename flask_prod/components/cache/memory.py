"""Entries in the memory of this process; what one process of a host invalidates counts in all of them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from time import time

import msgspec

from flask_prod.core.component import Finding

from .board import Board, Marks
from .entry import Entry
from .envelope import PLAIN
from .locks import Handover, HostLocks, Release
from .stores import Ticket, remaining

_OVERHEAD = 400
"""Bytes that an entry takes beside its key and its payload: dictionary slot, tuples, object headers."""

_WORTH_HANDING_OVER = 0.02
"""Seconds of computation from which on it is worth writing a file, so that other processes need not repeat it."""

_integer = msgspec.json.Decoder(int)


class MemoryStore:
    """Entries of this process, bounded by bytes and number; the longest unused go first."""

    name = "memory"

    def __init__(  # what other processes of the host share is optional
        self,
        most_bytes: int,
        most_entries: int,
        board: Board | None = None,
        locks: HostLocks | None = None,
        handover: Handover | None = None,
        clock: Callable[[], float] = time,
    ) -> None:
        self.board = board or Board()
        self._most_bytes = most_bytes
        self._most_entries = most_entries
        self._locks = locks or HostLocks(None)
        self._handover = handover or Handover(None)
        self._clock = clock
        self._entries: OrderedDict[str, tuple[Entry, Marks]] = OrderedDict()
        self.bytes = 0
        self._lock = threading.Lock()

    def get(self, key: str, tags: Sequence[str] = ()) -> Entry | None:
        """Return what has not ended and was not invalidated.

        Without the lock, which costs as much as the rest: each step is one call of C, and finds out itself if
        another thread came between them.
        """
        held = self._entries.get(key)
        if held is None:
            return None
        entry, marks = held
        cells = self.board.cells
        for slot, number in marks:
            if cells[slot] != number:
                break
        else:
            if not entry.stale_until or entry.stale_until > self._clock():
                try:
                    self._entries.move_to_end(key)
                except KeyError:
                    return None
                return entry
        with self._lock:
            return self._get(key)

    def peek(self, key: str) -> Entry | None:
        """Return the same."""
        return self.get(key)

    def get_many(self, keys: Sequence[str]) -> list[Entry | None]:
        """Return several."""
        with self._lock:
            return [self._get(key) for key in keys]

    def ticket(self, key: str, tags: Sequence[str] = ()) -> Ticket:
        """Return the cells of the board."""
        return Ticket(self.board.marks(key, tags), self.board.stamps(tags))

    def keep(self, key: str, entry: Entry, ticket: Ticket) -> bool:
        """Store, and leave it for the other processes if it was costly."""
        if not self.hold(key, entry, ticket.marks):
            return False
        if entry.cost >= _WORTH_HANDING_OVER:
            self._handover.leave(key, entry, ticket.marks)
        return True

    def hold(self, key: str, entry: Entry, marks: Marks) -> bool:
        """Store in this process alone, for as long as *marks* hold."""
        if not self.board.hold(marks):
            return False
        if entry.tier != "memory":
            entry = msgspec.structs.replace(entry, tier="memory")
        with self._lock:
            self._put(key, entry, marks)
        return True

    def set_many(self, entries: Mapping[str, Entry]) -> bool:
        """Store; other processes forget what they have, unless it is the same."""
        for key, entry in entries.items():
            self.board.set(key, entry.payload)
            self.hold(key, entry, _marks_of(self.board, key, entry))
        return True

    def add(self, key: str, entry: Entry) -> bool:
        """Store unless there is one."""
        marks = _marks_of(self.board, key, entry)
        with self._lock:
            if self._get(key) is not None:
                return False
            self._put(key, entry, marks)
            return True

    def increment(self, key: str, by: int, ttl: float) -> int | None:
        """Count in this process."""
        now = self._clock()
        marks = self.board.marks(key)
        with self._lock:
            found = self._get(key)
            number = by if found is None else number_of(found) + by
            ends = (now + ttl if ttl else 0.0) if found is None else found.expires
            payload = msgspec.json.encode(number)
            self._put(key, Entry(PLAIN, payload, now, ends, ends, tier="memory"), marks)
            return number

    def ttl(self, key: str) -> float | None:
        """Return what is left of its time."""
        return remaining(self.get(key), self._clock())

    def delete_many(self, keys: Sequence[str]) -> list[str]:
        """Forget, in all processes of the host."""
        with self._lock:
            gone = {key for key in keys if self._get(key) is not None}
            for key in gone:
                self._drop(key)
        self.board.touch(keys, tags=keys)
        return [key for key in keys if self.board.forget(key) or key in gone]

    def delete_pattern(self, pattern: str) -> int:
        """Forget what matches; nobody knows the keys of the other processes, which forget everything."""
        with self._lock:
            found = [key for key in list(self._entries) if fnmatchcase(key, pattern)]
            self._entries.clear()
            self.bytes = 0
        self.board.touch_all()
        return len(found)

    def invalidate(self, tags: Sequence[str]) -> bool:
        """Tell all processes of the host; who looks sees it."""
        self.board.touch(tags=tags)
        return True

    def clear(self) -> bool:
        """Forget everything, in all processes of the host."""
        self.board.touch_all()
        self.empty()
        return True

    def empty(self) -> None:
        """Forget everything in this process."""
        with self._lock:
            self._entries.clear()
            self.bytes = 0

    def lock(self, key: str, seconds: float) -> Release | None:
        """Lock on this host; the system releases it when its owner dies."""
        return self._locks.take(key)

    def claim(self, name: str, seconds: float) -> bool:
        """Let every process: each has a memory of its own, and takes what another one has left."""
        return True

    def again(self, key: str, tags: Sequence[str] = ()) -> Entry | None:
        """Look in the memory, then for what another process has left."""
        found = self.get(key)
        if found is not None and found.is_fresh(self._clock()):
            return found
        fetched = self._handover.fetch(key)
        if fetched is None or fetched[0].is_over(self._clock()):
            return found
        left, marks = fetched
        marks += tuple((self.board.slot(tag), number) for tag, number in left.tags)
        return left if self.hold(key, left, marks) else found

    def tick(self) -> None:
        """See that the board is still there."""
        self.board.check()

    def probe(self) -> Finding | None:
        """Say how full it is."""
        return Finding(data=self.size())

    def size(self) -> dict[str, object]:
        """Return how many entries there are, and their bytes."""
        return {"entries": len(self._entries), "bytes": self.bytes}

    def start(self) -> None:
        """Have nothing to start."""

    def after_fork(self) -> None:
        """Renew the lock: the thread that held it may not be here."""
        self._lock = threading.Lock()

    def close(self) -> None:
        """Have nothing to end."""

    def _get(self, key: str) -> Entry | None:
        held = self._entries.get(key)
        if held is None:
            return None
        entry, marks = held
        if not self.board.hold(marks) or (entry.stale_until and entry.stale_until <= self._clock()):
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry

    def _put(self, key: str, entry: Entry, marks: Marks) -> None:
        self._drop(key)
        self._entries[key] = (entry, marks)
        self.bytes += _size(key, entry)
        while self._entries and (self.bytes > self._most_bytes or len(self._entries) > self._most_entries):
            oldest, held = self._entries.popitem(last=False)
            self.bytes -= _size(oldest, held[0])

    def _drop(self, key: str) -> bool:
        held = self._entries.pop(key, None)
        if held is None:
            return False
        self.bytes -= _size(key, held[0])
        return True


def _size(key: str, entry: Entry) -> int:
    return len(key) + len(entry.payload) + _OVERHEAD


def _marks_of(board: Board, key: str, entry: Entry) -> Marks:
    """Return what an entry depends on, with the stamps that it already has for its tags."""
    return board.marks(key) + tuple((board.slot(tag), number) for tag, number in entry.tags)


def number_of(entry: Entry) -> int:
    """Return the whole number that an entry holds; TypeError if it is something else."""
    try:
        if entry.kind == PLAIN:
            return _integer.decode(entry.payload)
    except msgspec.MsgspecError:
        pass
    raise TypeError("increment needs a whole number; there is something else under this key.")
