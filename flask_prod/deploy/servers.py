"""The sizes of PostgreSQL and Redis, computed from memory, cores and the connections that the service wants.

docs/deploy/servers.md names the source of each formula. Nothing is promised that could not be had all at once: the
sum of what PostgreSQL may take stays within its memory, and connections for which there is none are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from flask_prod.server.sums import RESERVED


class Bytes(int):
    """An amount of memory, written as both servers read it: `512MB`, `1600kB`."""

    def __str__(self) -> str:
        return f"{self // MB}MB" if self % MB == 0 else f"{self // KB}kB"


KB, MB, GB = 1024, 1024**2, 1024**3

BACKEND = 3 * MB
"""What one connection takes by itself, its page tables included: see docs/deploy/servers.md."""

HASHES = 2
"""How many times work_mem a hash may take: PostgreSQL's default of hash_mem_multiplier."""

VACUUMS = 3
"""Vacuums at a time: PostgreSQL's default of autovacuum_max_workers."""

WAL = 16 * MB
"""The most that wal_buffers takes by itself: PostgreSQL's default is 1/32 of shared_buffers, up to this."""

LEAST_WORK = 64 * KB
"""The least work_mem that PostgreSQL takes."""

GOOD_WORK = 1 * MB
"""The work_mem for which a remedy asks: below it, sorts of some thousand rows go to the disk."""


@dataclass(frozen=True)
class DatabaseSizes:
    """What PostgreSQL gets of *memory* bytes and *cpus*, where the service wants so many connections."""

    memory: int
    cpus: int
    wanted: int

    @property
    def connections(self) -> int:
        """max_connections: what the service wants and what is kept for superusers, rounded up to tens."""
        return -(-(self.wanted + RESERVED) // 10) * 10

    @property
    def shared(self) -> Bytes:
        """shared_buffers: a quarter, where PostgreSQL's manual tells to begin."""
        return _whole(self.memory // 4, MB)

    @property
    def cached(self) -> Bytes:
        """effective_cache_size: three quarters; a hint to the planner, not an allocation."""
        return _whole(self.memory * 3 // 4, MB)

    @property
    def maintenance(self) -> Bytes:
        """maintenance_work_mem: a sixteenth, up to 2 GB."""
        return _whole(min(2 * GB, self.memory // 16), MB)

    @property
    def vacuum(self) -> Bytes:
        """autovacuum_work_mem: half of that for each of the vacuums that may run at a time."""
        return _whole(self.maintenance // 2, MB)

    @property
    def spare(self) -> Bytes:
        """A tenth, for the rest of the server and the kernel's cache of files."""
        return _whole(self.memory // 10, MB)

    @property
    def fixed(self) -> Bytes:
        """All that is not work_mem."""
        backends = self.connections * BACKEND
        return Bytes(self.spare + self.shared + backends + self.maintenance + VACUUMS * self.vacuum + WAL)

    @property
    def sorting(self) -> int:
        """How many processes may sort or hash at a time: connections, and parallel workers."""
        return self.connections + self.cpus

    @property
    def work(self) -> Bytes:
        """work_mem: an equal share of what is left for everybody who may need it at the same time."""
        return _whole(max(0, self.memory - self.fixed) // (self.sorting * HASHES), 64 * KB)

    @property
    def most(self) -> Bytes:
        """What all of it takes when everybody takes all that is allowed."""
        return Bytes(self.fixed + self.sorting * HASHES * self.work)

    @property
    def gather(self) -> int:
        """Parallel workers of one query: half of the cores, up to four; one core has none to give."""
        return min(4, self.cpus // 2)

    def problems(self) -> Iterator[str]:
        """Yield why these connections do not fit into this memory, and what would."""
        if self.work < LEAST_WORK:
            yield (
                f"DEPLOY_DATABASE_MEMORY is {_whole(self.memory, KB)}, too little for the {self.connections} "
                f"connections that all instances may want: set it to {self._enough() // MB}MB, or lower "
                "DATABASE_MAX_OPEN_CONNS, DEPLOY_CONCURRENCY or DEPLOY_MOST_REPLICAS."
            )

    def _enough(self) -> int:
        """Return a memory with which there is a good work_mem, in steps of 256 MB."""
        memory = self.memory
        while DatabaseSizes(memory, self.cpus, self.wanted).work < GOOD_WORK:
            memory = (memory // (256 * MB) + 1) * 256 * MB
        return memory


@dataclass(frozen=True)
class RedisSizes:
    """What Redis gets of *memory* bytes and *cpus*."""

    memory: int
    cpus: int

    @property
    def data(self) -> Bytes:
        """maxmemory: three quarters; the rest is for copies while a file is rewritten, and for connections."""
        return _whole(self.memory * 3 // 4, MB)

    @property
    def threads(self) -> int:
        """io-threads: three quarters of four cores or more, up to eight; one where there are fewer."""
        return min(8, self.cpus * 3 // 4) if self.cpus >= 4 else 1


def _whole(size: int, unit: int) -> Bytes:
    """Return whole units, never more than *size*."""
    return Bytes(size // unit * unit)
