"""What it costs to choose between primary and replica: fifty reads of a session in a request, from SQLite files.

`bare` is the kit's session where there are no replicas, `by_hand` the same with the recipe of SQLAlchemy's own
documentation (`get_bind` overridden: all but a flush goes to a replica), `kit` a marked view with a replica.
All three measure their queries, so that the rest is the choice.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flask import Flask
from sqlalchemy import Engine, create_engine, insert, select
from sqlalchemy.orm import Session, sessionmaker

from bench.measure import Figures, instructions, times
from bench.queries import ASKED, item, metadata
from flask_prod import ProdKit
from flask_prod.components.database.engine import parse_url

NAMES = {"bare": "routing.bare", "by_hand": "routing.by_hand", "kit": "routing.kit"}

MOST = 10.0
"""Microseconds that the choice may cost."""


def build(name: str) -> Flask:
    """Build the application of one name in `NAMES`."""
    url = f"sqlite:///{Path(os.environ['PROMETHEUS_MULTIPROC_DIR'])}/routed.sqlite3"
    filled = create_engine(url)
    metadata.create_all(filled)
    with filled.begin() as connection:
        connection.execute(insert(item), [{"id": n, "name": f"Teapot {n}"} for n in range(1, 100)])
    filled.dispose()
    prod, app = ProdKit(only=["metrics", "database"]), Flask(name)
    app.config.update(DATABASE_URL=url, SECRET_KEY="a key of the bench")
    if name == NAMES["kit"]:
        app.config["DATABASE_REPLICA_URLS"] = url
    prod.init_app(app)
    sessions = _recipe(app, prod, url) if name == NAMES["by_hand"] else None
    _route(app, prod, sessions)
    if name == NAMES["kit"]:
        _wait_for_replica(app)
    return app


def routing_instructions(
    environ: Callable[[], dict[str, str]], names: Sequence[str] = tuple(NAMES)
) -> Figures | str:
    """Count the instructions of one read."""
    counted = instructions(environ, [NAMES[name] for name in names], counted=40)
    return counted if isinstance(counted, str) else {name: counted[NAMES[name]] / ASKED for name in names}


def routing_times(environ: Callable[[], dict[str, str]]) -> Figures:
    """Return the median microseconds of one read, the applications taking turns."""
    taken = times(environ, tuple(NAMES.values()), per_round=10)
    return {name: taken[app] / ASKED for name, app in NAMES.items()}


def chosen(figures: Figures) -> str:
    """Return the sentence about what the choice costs."""
    return f"choosing a server costs a read {figures['kit'] - figures['bare']:.1f} us; {MOST:g} us may be"


def _route(app: Flask, prod: ProdKit, sessions: Callable[[], Session] | None) -> None:
    @app.get("/api/items/<int:number>")
    @prod.db.replica
    def view(number: int) -> dict[str, Any]:
        session = prod.db.session if sessions is None else sessions()
        with session:
            for one in range(1, ASKED):
                session.execute(select(item).where(item.c.id == one)).one()
            return dict(session.execute(select(item).where(item.c.id == 7)).one()._mapping)


def _recipe(app: Flask, prod: ProdKit, url: str) -> Callable[[], Session]:
    with app.app_context():
        primary = prod.db.engine
        replicas = [
            app.extensions["prod"].contributions["database"].handle.engines.open(parse_url(url), "replica-1")
        ]

    class Recipe(Session):
        def get_bind(self, *_given: Any, **_named: Any) -> Engine:
            if self._flushing:
                return primary
            chosen: Engine = random.choice(replicas)
            return chosen

    return sessionmaker(class_=Recipe)


def _wait_for_replica(app: Flask) -> None:
    replication = app.extensions["prod"].contributions["database"].handle.replication
    replication.start()
    end = time.monotonic() + 10
    while not replication.replicas[0].is_in(time.monotonic()):
        if time.monotonic() > end:
            raise TimeoutError("the replica takes no reads")
        time.sleep(0.01)
