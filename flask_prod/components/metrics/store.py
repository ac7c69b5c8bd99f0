"""Values of several processes, each in files of its own: prometheus_client's format with three differences.

A process holds a numbered slot, not its process id: a worker that is replaced leaves its counters to the next
one, so they never fall and the number of files stays bounded, forked job workers included. Gauges of the dead are
told from those of the living by the slot's lock, without a hook. And disk space is reserved before it is mapped;
values that find no room go on in memory, as all do where there is one process only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import close
from pathlib import Path
from struct import error as StructError
from threading import RLock
from typing import TYPE_CHECKING

from prometheus_client.mmap_dict import MmapedDict, mmap_key

from .exemplars import Exemplars
from .page import Memory, Numbers, Page
from .slots import LIVE, Slots

if TYPE_CHECKING:
    from prometheus_client.samples import Exemplar

Locate = Callable[[], Path | None]
"""Tells where the values lie now; None: in memory."""


class FileValue:
    """One number of one process; what prometheus_client calls a value."""

    __slots__ = ("_numbers", "_position", "_store", "exemplar", "key", "kind")

    def __init__(self, store: FileStore, kind: str, key: str) -> None:
        self._store = store
        self.kind = kind
        self.key = key
        self.exemplar: Exemplar | None = None
        self.unbind()

    def unbind(self) -> None:
        """Forget where the number lies; the next use finds the place of this process."""
        self._numbers: Numbers | None = None
        self._position = 0

    def place(self) -> tuple[Numbers, int]:
        """Return where the number lies; good while the store's lock is held, and until it says otherwise."""
        numbers = self._numbers
        if numbers is not None and not self._store.moves:
            return numbers, self._position
        self._numbers, self._position = place = self._store.place(self.kind, self.key)
        return place

    def inc(self, amount: float) -> None:
        """Add *amount*."""
        store = self._store
        lock = store.lock
        lock.acquire()  # without `with`, which costs twice as much
        try:
            numbers, position = self._numbers, self._position
            if numbers is None or store.moves:
                numbers, position = self.place()
            numbers[position] += amount
        finally:
            lock.release()

    def set(self, value: float, timestamp: float | None = None) -> None:
        """Replace the value; *timestamp* in seconds decides between processes."""
        with self._store.lock:
            numbers, position = self.place()
            numbers[position] = value
            numbers[position + 1] = timestamp or 0.0

    def get(self) -> float:
        """Return this process's value."""
        with self._store.lock:
            numbers, position = self.place()
            return numbers[position]

    def set_exemplar(self, exemplar: Exemplar) -> None:
        """Remember one request that was counted here."""
        self.exemplar = exemplar
        self._store.exemplars.keep(self.key, exemplar)

    def get_exemplar(self) -> Exemplar | None:
        """Return the last one that was remembered in this process."""
        return self.exemplar


class FileStore:
    """The values of one application in one process, below a directory that its processes share, or in memory.

    Applications of the same *owner* name are one service: their values add up. `on_failure` is told once when
    the directory takes no more. `on_release` is called, with the lock held, whenever places are no longer good.
    """

    def __init__(self, directory: Path | None, owner: str, on_failure: Callable[[OSError], None]) -> None:
        self.directory = directory
        self.owner = re.sub(r"[^A-Za-z0-9-]+", "-", owner)
        self.lock = RLock()  # re-entrant: telling of a failure may count something
        self.failed = False
        self.moves = False
        self.exemplars = Exemplars()
        self.on_release: list[Callable[[], None]] = []
        self._locate: Locate | None = None
        self._on_failure = on_failure
        self._values: list[FileValue] = []
        self._memory = Memory()
        self._pages: dict[str, Page] = {}
        self._slot: tuple[int, int] | None = None
        self._closed = False

    @property
    def shared(self) -> bool:
        """True while values lie where other processes see them."""
        return self.directory is not None and not self.failed

    def value(self, kind: str, names: tuple[str, str], labels: Sequence[tuple[str, str]], text: str) -> FileValue:
        """Return the value of a metric (its name and the sample's) in files of *kind*, at zero or as stored."""
        label_names, label_values = [name for name, _ in labels], [value for _, value in labels]
        value = FileValue(self, kind, mmap_key(names[0], names[1], label_names, label_values, text))
        with self.lock:
            self._values.append(value)
            value.place()
        return value

    def place(self, kind: str, key: str) -> tuple[Numbers, int]:
        """Find the place for *key*, claiming a slot first if need be. The lock is held."""
        if self._locate is not None:
            self._go_to(self._locate())
        if self._closed or self.directory is None:
            return self._memory.place(kind, key)
        try:
            place = (self._pages.get(kind) or self._open(self.directory, kind)).place(key)
        except OSError as error:
            self._fail(error)
            return self._memory.place(kind, key)
        for offset, number in enumerate(self._memory.take(kind, key)):
            place[0][place[1] + offset] += number  # what was counted before there was a directory
        return place

    def follow(self, locate: Locate) -> None:
        """Keep values wherever *locate* says, asked at every write: for job workers, which outlive web servers."""
        with self.lock:
            self._locate, self.moves = locate, True

    def move(self, directory: Path) -> None:
        """Keep values in *directory* from now on; those of this process come along, zeros too."""
        with self.lock:
            self._go_to(directory)
            for value in self._values:
                value.place()

    def after_fork(self) -> None:
        """Let go of what belongs to the parent; this process claims a slot when it first writes."""
        self.lock = RLock()
        self.exemplars = Exemplars()
        self._release()
        self._memory.clear()

    def close(self) -> None:
        """Give the slot back; what is counted from now on is not kept."""
        with self.lock:
            self._closed = True
            self._release()

    def files(self) -> list[str]:
        """Return the files to add up: all of this owner's, and those of prometheus_client itself."""
        alive = {number for number, _ in self.living()}
        return [str(path) for path in self._glob("*.db") if self._counts(path, alive)]

    def total(self, counter: str) -> float:
        """Return the sum over all series of a counter, whose name goes without `_total`, in all processes."""
        beginning = mmap_key(counter, f"{counter}_total", [], [], "").partition("{")[0]
        return sum(
            value
            for path in self._glob(f"counter_{self.owner}.*.db")
            for key, value in _values(path)
            if key.startswith(beginning)
        )

    def series(self, metric: str) -> set[frozenset[tuple[str, str]]]:
        """Return the label combinations of a metric that all processes have together."""
        beginning = json.dumps([metric])[:-1] + ", "
        return {
            frozenset((name, value) for name, value in json.loads(key)[2].items() if name != "le")
            for path in self._glob(f"*_{self.owner}.*.db")
            for key, _ in _values(path)
            if key.startswith(beginning)
        }

    def living(self) -> Iterator[tuple[int, int]]:
        """Yield slot and process id of every process that lives."""
        return Slots(self.directory, self.owner).living() if self.directory else iter(())

    def share_exemplars(self) -> None:
        """Write down what this process remembers, for whichever process is scraped."""
        if self.shared and self.directory and self._slot is not None:
            self.exemplars.write(self.directory / f"exemplars_{self.owner}.{self._slot[0]}.json")

    def all_exemplars(self) -> Mapping[str, Exemplar]:
        """Return the last one of each value over all processes."""
        self.share_exemplars()
        return self.exemplars.with_files(self._glob(f"exemplars_{self.owner}.*.json"))

    def _glob(self, pattern: str) -> list[Path]:
        return list(self.directory.glob(pattern)) if self.directory else []

    def _counts(self, path: Path, alive: set[int]) -> bool:
        identity = path.stem.rpartition("_")[2]
        if identity.isdigit():
            return True
        owner, _, number = identity.rpartition(".")
        return owner == self.owner and (not path.name.startswith(LIVE) or int(number) in alive)

    def _open(self, directory: Path, kind: str) -> Page:
        if self._slot is None:
            self._slot = Slots(directory, self.owner).claim()
        path = directory / f"{kind}_{self.owner}.{self._slot[0]}.db"
        try:
            page = Page(path)
        except (RuntimeError, ValueError, StructError):
            path.unlink()  # a predecessor left it half written; its numbers are lost
            page = Page(path)
        self._pages[kind] = page
        return page

    def _go_to(self, directory: Path | None) -> None:
        if directory != self.directory:
            self._release()
            self.directory, self.failed = directory, False

    def _release(self) -> None:
        for value in self._values:
            value.unbind()
        for forget in self.on_release:
            forget()
        for page in self._pages.values():
            page.close()
        self._pages.clear()
        if self._slot is not None:
            close(self._slot[1])
            self._slot = None

    def _fail(self, error: OSError) -> None:
        if not self.failed:
            self.failed = True
            self._on_failure(error)


def _values(path: Path) -> list[tuple[str, float]]:
    """Return what a file holds; nothing when it goes away or is half written just now."""
    try:
        return [(key, value) for key, value, *_ in MmapedDict.read_all_values_from_file(str(path))]
    except (OSError, ValueError, RuntimeError, StructError):
        return []
