"""A real primary with a streaming replica: what lags, freezes and dies in the tests of reads and writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.servers import HOST, Postgres, wait_for


def ask(server: Postgres, statement: str) -> str:
    """Return the first column of the first row as text."""
    with psycopg.connect(server.dsn, autocommit=True, connect_timeout=5) as connection:
        row = connection.execute(statement.encode()).fetchone()
    return "" if row is None else str(row[0])


class Replica(Postgres):
    """A copy of *primary* that follows it by streaming; may be delayed, paused, killed and started again."""

    def __init__(self, primary: Postgres) -> None:
        super().__init__()
        self.primary = primary

    def delay(self, milliseconds: int) -> None:
        """Apply each commit of the primary so much later; 0 at once."""
        self.execute(f"ALTER SYSTEM SET recovery_min_apply_delay = '{milliseconds}ms'")
        self.execute("SELECT pg_reload_conf()")

    def hold(self) -> None:
        """Apply nothing more until `go_on`; queries are answered from what there is."""
        self.execute("SELECT pg_wal_replay_pause()")

    def go_on(self) -> None:
        """Apply what was held back."""
        self.execute("SELECT pg_wal_replay_resume()")

    def catch_up(self) -> None:
        """Return when all that the primary has committed by now is applied."""
        wanted = ask(self.primary, "SELECT pg_current_wal_insert_lsn()")
        reached = f"SELECT pg_last_wal_replay_lsn() >= '{wanted}'"
        self.primary.execute("SELECT txid_current()")  # a record after it, should it lie between two pages
        wait_for(lambda: ask(self, reached) == "True", 15, "the replica's catching up")

    def _init(self, data: Path) -> None:
        port = str(self.primary.port)
        self._launch(
            "pg_basebackup", "-D", str(data), "-R", "-X", "stream", "-c", "fast", "--no-sync", "-U", "postgres",
            "-h", HOST, "-p", port,
        )  # fmt: skip
        if self.process.wait(60):
            raise RuntimeError(f"pg_basebackup failed:\n{self.process.stdout}{self.process.stderr}")


@contextmanager
def streaming() -> Iterator[tuple[Postgres, Replica]]:
    """Run a primary and a replica that has caught up with it."""
    with Postgres() as primary, Replica(primary) as replica:
        replica.catch_up()
        yield primary, replica
