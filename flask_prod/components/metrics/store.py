"""Values of several processes, each in files of its own: prometheus_client's format with three differences.

A process holds a numbered slot, not its process id: a worker that is replaced leaves its counters to the next
one, so they never fall and the number of files stays bounded, forked job workers included. A slot is held by a
file lock, which the kernel gives back however a process ends: gauges of the dead are told from those of the
living without a hook. And disk space is reserved before it is mapped, because writing to a mapped page that the
disk has no room for kills the process (SIGBUS); values that find no room go on in memory.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from struct import Struct
from struct import error as StructError
from threading import RLock

from prometheus_client.mmap_dict import MmapedDict, mmap_key

_MOST_PROCESSES = 4096
_pack = Struct("dd").pack

LIVE = "gauge_live"
"""How the files of gauges begin that count only while their process lives."""


class Page(MmapedDict):
    """A file of values whose space is reserved on the disk; OSError when there is none."""

    def __init__(self, path: Path) -> None:
        with open(path, "ab") as file:
            os.posix_fallocate(file.fileno(), 0, max(file.tell(), 1 << 16))
        try:
            super().__init__(str(path))  # type: ignore[no-untyped-call]  # prometheus_client is annotated in part
        except BaseException:
            self._f.close()
            raise

    def _init_value(self, key: str) -> None:
        # The library doubles the file until the entry fits; an entry's overhead is below 32 bytes.
        needed = self._used + len(key.encode()) + 32
        capacity = self._capacity
        while needed > capacity:
            capacity *= 2
        if capacity > self._capacity:
            os.posix_fallocate(self._f.fileno(), 0, capacity)
        super()._init_value(key)  # type: ignore[no-untyped-call]  # prometheus_client is annotated in part

    def place(self, key: str) -> tuple[float, int]:
        """Return the stored value of *key* and where it lies, making room for it first."""
        value: float = self.read_value(key)[0]  # type: ignore[no-untyped-call]  # prometheus_client is annotated in part
        return value, self._positions[key]

    def put(self, position: int, value: float, timestamp: float) -> None:
        """Write a value where `place` said."""
        self._m[position : position + 16] = _pack(value, timestamp)


class _NoPage:
    """Where values go when the disk takes none: nowhere."""

    def put(self, position: int, value: float, timestamp: float) -> None:
        return


_NO_PAGE = _NoPage()


class FileValue:
    """One number of one process, in memory and in its file; what prometheus_client calls a value."""

    __slots__ = ("_page", "_position", "_store", "_value", "key", "kind")

    def __init__(self, store: FileStore, kind: str, key: str) -> None:
        self._store = store
        self.kind = kind
        self.key = key
        self.unbind()

    def unbind(self) -> None:
        """Forget the file; the next write finds the one of this process."""
        self._page: Page | _NoPage | None = None
        self._position = 0
        self._value = 0.0

    def bind(self) -> Page | _NoPage:
        """Go on from what this process's slot has stored. The store's lock is held."""
        self._page, self._value, self._position = self._store.place(self.kind, self.key)
        return self._page

    def inc(self, amount: float) -> None:
        """Add *amount*."""
        with self._store.lock:
            page = self._page or self.bind()
            self._value += amount
            page.put(self._position, self._value, 0.0)

    def set(self, value: float, timestamp: float | None = None) -> None:
        """Replace the value; *timestamp* in seconds decides between processes."""
        with self._store.lock:
            page = self._page or self.bind()
            self._value = value
            page.put(self._position, value, timestamp or 0.0)

    def get(self) -> float:
        """Return this process's value."""
        return self._value

    def set_exemplar(self, exemplar: object) -> None:
        """Drop the exemplar: the files have no room for one."""

    def get_exemplar(self) -> None:
        """Return None."""
        return


class FileStore:
    """The files of one application in one process, below a directory that its processes share.

    Applications of the same *owner* name are one service: their values add up. `on_failure` is told once when
    the directory takes no more.
    """

    def __init__(self, directory: Path, owner: str, on_failure: Callable[[OSError], None]) -> None:
        self.directory = directory
        self.owner = re.sub(r"[^A-Za-z0-9-]+", "-", owner)
        self.lock = RLock()  # re-entrant: telling of a failure may count something
        self.failed = False
        self._on_failure = on_failure
        self._values: list[FileValue] = []
        self._pages: dict[str, Page] = {}
        self._slot: tuple[int, int] | None = None
        self._closed = False

    def value(self, kind: str, names: tuple[str, str], labels: Sequence[tuple[str, str]], text: str) -> FileValue:
        """Return the value of a metric (its name and the sample's) in files of *kind*, at zero or as stored."""
        label_names, label_values = [name for name, _ in labels], [value for _, value in labels]
        value = FileValue(self, kind, mmap_key(names[0], names[1], label_names, label_values, text))
        with self.lock:
            self._values.append(value)
            value.bind()
        return value

    def place(self, kind: str, key: str) -> tuple[Page | _NoPage, float, int]:
        """Find the page for *key*, claiming a slot first if need be. The lock is held."""
        if self._closed:
            return _NO_PAGE, 0.0, 0
        try:
            page = self._pages.get(kind) or self._open(kind)
            return page, *page.place(key)
        except OSError as error:
            self._fail(error)
            return _NO_PAGE, 0.0, 0

    def after_fork(self) -> None:
        """Let go of what belongs to the parent; this process claims a slot when it first writes."""
        self.lock = RLock()
        self._release()

    def close(self) -> None:
        """Give the slot back; what is counted from now on is not kept."""
        with self.lock:
            self._closed = True
            self._release()

    def files(self) -> list[str]:
        """Return the files to add up: all of this owner's, and those of prometheus_client itself."""
        alive = {number for number, _ in self.living()}
        return [str(path) for path in self.directory.glob("*.db") if self._counts(path, alive)]

    def total(self, counter: str) -> float:
        """Return the sum over all series of a counter, whose name goes without `_total`, in all processes."""
        beginning = mmap_key(counter, f"{counter}_total", [], [], "").partition("{")[0]
        return sum(
            value
            for path in self.directory.glob(f"counter_{self.owner}.*.db")
            for key, value in _values(path)
            if key.startswith(beginning)
        )

    def living(self) -> Iterator[tuple[int, int]]:
        """Yield slot and process id of every process that lives."""
        for path in self.directory.glob(f"slot_{self.owner}.*.lock"):
            with open(path, "rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    yield int(path.name.split(".")[-2]), int((file.read().split() or [b"0"])[0])

    def _counts(self, path: Path, alive: set[int]) -> bool:
        identity = path.stem.rpartition("_")[2]
        if identity.isdigit():
            return True
        owner, _, number = identity.rpartition(".")
        return owner == self.owner and (not path.name.startswith(LIVE) or int(number) in alive)

    def _open(self, kind: str) -> Page:
        if self._slot is None:
            self._slot = self._claim()
        path = self.directory / f"{kind}_{self.owner}.{self._slot[0]}.db"
        try:
            page = Page(path)
        except (RuntimeError, ValueError, StructError):
            path.unlink()  # a predecessor left it half written; its numbers are lost
            page = Page(path)
        self._pages[kind] = page
        return page

    def _claim(self) -> tuple[int, int]:
        """Take the lowest slot that no living process holds; clear what earlier lives of the service left."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for number in range(_MOST_PROCESSES):
            lock = _lock(self.directory / f"slot_{self.owner}.{number}.lock")
            if lock is None:
                continue
            # The live gauges of a predecessor are gone with it; its counters go on while its parent lives.
            self._forget(number, "" if _life_ended(lock) else LIVE)
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()} {os.getppid()} {_born(os.getppid())}".encode(), 0)
            self._sweep()
            return number, lock
        raise OSError(f"{self.directory} has {_MOST_PROCESSES} processes already")

    def _sweep(self) -> None:
        """Remove the files of slots that belong to an earlier life and that nobody has taken over."""
        for path in self.directory.glob(f"slot_{self.owner}.*.lock"):
            lock = _lock(path)
            if lock is not None:
                if _life_ended(lock):
                    self._forget(int(path.name.split(".")[-2]), "")
                os.close(lock)

    def _forget(self, number: int, kinds: str) -> None:
        for stale in self.directory.glob(f"{kinds}*_{self.owner}.{number}.db"):
            stale.unlink(missing_ok=True)

    def _release(self) -> None:
        for value in self._values:
            value.unbind()
        for page in self._pages.values():
            page.close()  # type: ignore[no-untyped-call]  # prometheus_client is annotated in part
        self._pages.clear()
        if self._slot is not None:
            os.close(self._slot[1])
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


def _lock(path: Path) -> int | None:
    """Open and lock a slot's file; None when a living process holds it."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return lock


def _life_ended(lock: int) -> bool:
    """Tell whether the parent of a slot's last holder (gunicorn's master, a job worker) has ended since."""
    words = os.pread(lock, 100, 0).decode(errors="replace").split()
    return len(words) == 3 and _born(words[1]) != words[2]


def _born(pid: int | str) -> str:
    """Return when a process began, in ticks since the machine did; `-` when it is no more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return "-"
