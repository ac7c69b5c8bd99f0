"""Jobs in a table of MariaDB, whose own idea of a text is short and without accents."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from flask_prod.components.jobs.delivery.source import Dead
from flask_prod.components.jobs.outbox.source import DatabaseSource
from tests.apps import MakeApp
from tests.mariadb import running

from ..work import send_mail
from .test_outbox import engine_of, kit_with_database, outbox_of, rows, session_of


@pytest.fixture
def mariadb_url(pytestconfig: pytest.Config) -> Iterator[str]:
    """Give an empty database of a server whose texts are latin1 unless a table says otherwise."""
    with running(pytestconfig) as server, server.database() as url:
        yield url


def test_jobs_in_mariadb(make_app: MakeApp, mariadb_url: str) -> None:
    """Long arguments and any letters come back; a row that one worker has is skipped by the next."""
    long = "\N{SNOWMAN}\N{ROCKET}" * 15_000
    config = {"DATABASE_URL": mariadb_url, "JOBS_OUTBOX": "always", "JOBS_PAYLOAD_LIMIT": "1MB"}
    app = make_app(kit=kit_with_database(), **config)
    outbox_of(app).create()
    sources = [engine_of(app).backend.source(engine_of(app), name, ("emails",)) for name in ("one", "two")]

    with app.app_context():
        for number in range(3):
            send_mail.dispatch(number, body=long)
        session_of(app).rollback()
        for number in range(2):
            send_mail.dispatch(number, body=long)
        session_of(app).commit()
        with outbox_of(app).engine.begin() as connection:
            locked = sa.select(outbox_of(app).table.c.id).order_by("id").limit(1).with_for_update()
            connection.execute(locked)
            second = sources[0].take(("emails",), "aa01")
        first = sources[1].take(("emails",), "bb01")
        assert isinstance(sources[1], DatabaseSource)
        assert first is not None
        assert second is not None
        settled = sources[1].settle(first, Dead("LookupError", f"{long}\0"))[0]
        statuses = [row.status for row in rows(app)]

    assert [delivery.job.args for delivery in (first, second)] == [[0], [1]]
    assert [delivery.job.kwargs for delivery in (first, second)] == [{"body": long}] * 2
    assert settled
    assert statuses == ["dead", "running"]
