"""Entries in the memory of each process, over Redis, which tells every process what to forget.

How old can it be? A deletion or invalidation is told twice: over the board to all processes of the host, which
see it before the call returns; and over Redis's PUBLISH to all hosts, which see it as soon as the message arrives.
A listener that has heard nothing for two seconds (it asks every half second) is deaf: its process reads from
Redis itself until it hears again, and begins with an empty memory. So the bound is two seconds, however messages
get lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from flask_prod.core.component import Finding
from flask_prod.core.ports import ListenerPort

from .entry import Entry
from .memory import MemoryStore
from .shared import RedisStore
from .stores import Ticket

_MESSAGE = msgspec.json.Decoder(tuple[list[str], list[str]])


class TieredStore(RedisStore):
    """A memory over Redis; while nobody hears what Redis says, Redis alone."""

    name = "tiered"

    def __init__(self, *args: Any, memory: MemoryStore) -> None:
        super().__init__(*args)
        self.memory = memory
        self._channel = self._redis.key("cache-told")
        self._listener: ListenerPort | None = None

    @property
    def live(self) -> bool:
        """Whether this process hears what others invalidate."""
        listener = self._listener
        return listener is not None and listener.live

    def get(self, key: str, tags: Sequence[str] = ()) -> Entry | None:
        """Look in the memory, then ask Redis."""
        live = self.live
        if live:
            found = self.memory.get(key)
            if found is not None:
                return found
        latest = self._board.latest()
        found = super().get(key, tags)
        if found is not None and live and found.tier == "redis" and found.created:
            marks = self._board.marks(key, [tag for tag, _ in found.tags])
            # Nothing whatever was invalidated between the question and now; else it may be out of date already.
            if self._board.latest() == latest:
                self.memory.hold(key, found, marks)
        return found

    def peek(self, key: str) -> Entry | None:
        """Look in the memory alone."""
        return self.memory.get(key) if self.live else super().peek(key)

    def keep(self, key: str, entry: Entry, ticket: Ticket) -> bool:
        """Store in both."""
        kept = super().keep(key, entry, ticket)
        if kept and not self._standby.away and self.live:
            self.memory.hold(key, entry, ticket.marks)
        return kept

    def set_many(self, entries: Mapping[str, Entry]) -> bool:
        """Store in Redis; the memory has it after the first look."""
        done = super().set_many(entries)
        # Once more: a look between the first time and now has found the old value.
        self._board.touch(entries)
        return done

    def clear(self) -> bool:
        """Forget in both, and tell the others."""
        done = super().clear()
        self.memory.empty()
        return done

    def size(self) -> dict[str, object]:
        """Say how full the memory is."""
        return self.memory.size()

    def start(self) -> None:
        """Listen, in a process that serves."""
        self._listener = self._redis.listen(self._channel, self._hear, self.memory.empty)

    def after_fork(self) -> None:
        """Begin anew: the parent's listener is not here."""
        super().after_fork()
        self._listener = None
        self.memory.after_fork()
        self.memory.empty()

    def close(self) -> None:
        """End the listener."""
        if self._listener is not None:
            self._listener.stop()
            self._listener = None

    def probe(self) -> Finding | None:
        """Say how full the memory is, too."""
        found = super().probe() or Finding()
        data = {**found.data, **self.size(), "listening": self.live}
        return Finding(found.status, found.detail, data)

    def _told(self, keys: Iterable[str], tags: Iterable[str]) -> list[tuple[Any, ...]]:
        return [("PUBLISH", self._channel, msgspec.json.encode((list(keys), list(tags))))]

    def _clear(self) -> bool:
        done = super()._clear()
        self._redis.ask("PUBLISH", self._channel, b"null")
        return done

    def _make_up(self, names: list[str] | None) -> None:
        super()._make_up(names)
        self._redis.ask("PUBLISH", self._channel, b"null")

    def _hear(self, message: bytes | None) -> None:
        """Forget what another process has invalidated; everything, when it cannot be understood."""
        try:
            keys, tags = _MESSAGE.decode(message or b"")
        except msgspec.MsgspecError:
            self._board.touch_all()
            return
        self._board.touch(keys, tags)
