"""The outbox's table: what a row holds, and how an order gets into one and out again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.schema import CreateIndex, CreateTable

from ..dispatch.accept import Claim, Order
from ..dispatch.payload import JsonSerializer
from ..memory import job_from

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from ..engine import Engine

WAITING, SENT, RUNNING, FINISHED, DEAD = "waiting", "sent", "running", "finished", "dead"

NOTE = "note"
"""The status of rows that are no jobs: the last slots of schedules, who leads, and who works."""

FRONT = -1
"""The rank of a job that goes to the front of its queue; one that was interrupted comes before it."""


@dataclass(frozen=True)
class Outbox:
    """The table, and the engine of the database that it lies in."""

    table: sa.Table
    database: Any
    """The database room's handle: its `engine` connects with the first use."""

    @property
    def engine(self) -> sa.Engine:
        """The engine of the application's database."""
        engine: sa.Engine = self.database.engine
        return engine

    @property
    def session(self) -> Session | None:
        """The current context's session of this database; None where contexts have those of tenants."""
        session: Session | None = self.database.session if self.database.tenants is None else None
        return session

    def create(self) -> bool:
        """Make the table unless it is there; return whether it was made."""
        with self.engine.begin() as connection:
            if sa.inspect(connection).has_table(self.table.name):
                return False
            self.table.create(connection)
        return True

    def ddl(self) -> str:
        """Return the statements that make the table, in the database's own words."""
        dialect = self.engine.dialect
        indexes = [CreateIndex(index) for index in sorted_indexes(self.table)]
        statements: list[CreateTable | CreateIndex] = [CreateTable(self.table), *indexes]
        return "\n".join(f"{str(one.compile(dialect=dialect)).strip()};" for one in statements)


def sorted_indexes(table: sa.Table) -> list[sa.Index]:
    """Return the indexes of *table* by name."""
    return sorted(table.indexes, key=lambda index: str(index.name))


def outbox_table(name: str) -> sa.Table:
    """Return the table in a metadata of its own, so that no `create_all` of the application makes or drops it."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    text = sa.Text().with_variant(sa.Text(2**24), "mysql", "mariadb")  # LONGTEXT there: TEXT ends after 64 KB
    return sa.Table(
        name,
        sa.MetaData(),
        sa.Column("id", number, primary_key=True, autoincrement=True),
        sa.Column("job_id", sa.String(64), nullable=False, unique=True),
        sa.Column("queue", sa.String(64), nullable=False),
        sa.Column("job", sa.String(255), nullable=False),
        sa.Column("status", sa.String(12), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("due", sa.Double(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("moved", sa.Double(), nullable=False),
        sa.Column("body", text, nullable=False),
        sa.Column("claim", sa.String(255), nullable=False),
        sa.Column("sent_to", sa.String(64), nullable=False),
        sa.Column("lease", sa.Double(), nullable=False),
        sa.Column("token", sa.String(40), nullable=False),
        sa.Column("crashes", sa.Integer(), nullable=False),
        sa.Column("error", sa.String(255), nullable=False),
        sa.Column("reason", text, nullable=False),
        sa.Column("told", sa.Integer(), nullable=False),
        sa.Index(f"ix_{name}_next", "status", "queue", "place", "id"),
        sa.Index(f"ix_{name}_moved", "status", "moved"),
        mysql_charset="utf8mb4",  # a server's default may be latin1
        mariadb_charset="utf8mb4",
    )


def row_of(order: Order) -> dict[str, Any]:
    """Return an order as a row."""
    claim = order.claim
    rest: dict[str, Any] = {
        "fields": {name: value for name, value in order.fields.items() if value is not None},
        "after": list(order.after),
        "group": order.group,
        "claim": None if claim is None else [claim.key, claim.seconds, claim.until],
        "due": None if order.due is None else order.due.timestamp(),
    }
    due = rest["due"]
    return empty_row(order.job.id, WAITING) | {
        "queue": order.queue,
        "job": str(order.job.func_name)[:255],
        "place": FRONT if order.front else 0,
        "due": due or 0.0,
        "body": JsonSerializer.dumps(rest).decode(),
        "claim": "" if claim is None else claim.key[:255],
    }


def empty_row(job_id: str, status: str) -> dict[str, Any]:
    """Return a row of this status with nothing in it."""
    moment = time.time()
    texts = dict.fromkeys(("queue", "job", "body", "claim", "sent_to", "token", "error", "reason"), "")
    numbers = dict.fromkeys(("place", "crashes", "told"), 0)
    return {
        "job_id": job_id, "status": status, "created": moment, "moved": moment, "due": 0.0, "lease": 0.0,
        **texts, **numbers,
    }  # fmt: skip


def order_of(engine: Engine, row: Mapping[str, Any]) -> Order:
    """Return a row as the order that it was; raises whatever a body that nobody here wrote makes it raise."""
    rest = JsonSerializer.loads(str(row["body"]).encode())
    due, claim = rest["due"], rest["claim"]
    return Order(
        job=job_from(engine, row["job_id"], rest["fields"]),
        queue=row["queue"],
        fields=rest["fields"],
        due=None if due is None else datetime.fromtimestamp(due, UTC),
        front=row["place"] == FRONT,
        after=tuple(rest["after"]),
        group=rest["group"],
        claim=None if claim is None else Claim(*claim),
    )


def as_dict(row: sa.Row[Any]) -> dict[str, Any]:
    """Return a row by the names of its columns."""
    return dict(row._mapping)


def fields_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the job's record in a row."""
    fields: dict[str, Any] = JsonSerializer.loads(str(row["body"]).encode())["fields"]
    return fields


def changed(row: Mapping[str, Any], **fields: Any) -> str:
    """Return a row's body with other fields in the job's record."""
    rest = JsonSerializer.loads(str(row["body"]).encode())
    rest["fields"].update(fields)
    return JsonSerializer.dumps(rest).decode()
