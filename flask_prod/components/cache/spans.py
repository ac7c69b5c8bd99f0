"""Looking up and storing as spans: whether it was there, never under which key, which may be an address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flask_prod.core.ports import NO_SPAN, NoTracer, Tracer

from .entry import Entry
from .stores import Store, Ticket


def measure(store: Store, tracer: Tracer) -> None:
    """Measure what *store* is asked; where nothing is traced it stays as it is."""
    if not isinstance(tracer, NoTracer):
        _Measured(store, tracer).attach()


class _Measured:
    """A store's methods with a span around them."""

    def __init__(self, store: Store, tracer: Tracer) -> None:
        self._store: Any = store
        self._tracer = tracer
        self._told = {"cache.store": store.name}
        self._get, self._get_many = store.get, store.get_many
        self._keep, self._set_many = store.keep, store.set_many

    def attach(self) -> None:
        """Put them in the place of the store's own."""
        # Instance attributes: a class around the store would hide what each kind has beside the protocol.
        self._store.get, self._store.get_many = self.get, self.get_many
        self._store.keep, self._store.set_many = self.keep, self.set_many

    def get(self, key: str, tags: Sequence[str] = ()) -> Entry | None:
        """Look up."""
        block = self._tracer.span("cache get", "internal", self._told)
        if block is NO_SPAN:
            return self._get(key, tags)
        with block as span:
            entry = self._get(key, tags)
            span.set("cache.hit", entry is not None)
            if entry is not None and entry.tier:
                span.set("cache.tier", entry.tier)
        return entry

    def get_many(self, keys: Sequence[str]) -> list[Entry | None]:
        """Look several up."""
        with self._tracer.span("cache get", "internal", self._told) as span:
            entries = self._get_many(keys)
            span.set("cache.keys", len(keys))
            span.set("cache.hits", sum(entry is not None for entry in entries))
        return entries

    def keep(self, key: str, entry: Entry, ticket: Ticket) -> bool:
        """Store what was computed."""
        with self._tracer.span("cache set", "internal", self._told) as span:
            stored = self._keep(key, entry, ticket)
            span.set("cache.stored", stored)
        return stored

    def set_many(self, entries: Mapping[str, Entry]) -> bool:
        """Store what was given."""
        with self._tracer.span("cache set", "internal", self._told) as span:
            stored = self._set_many(entries)
            span.set("cache.stored", stored)
        return stored
