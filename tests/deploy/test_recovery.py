"""`flask prod deploy recover` on a small database, step by step; the disaster is in test_drill.py."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from flask import Flask
from flask.cli import ScriptInfo

from flask_prod.cli.group import prod
from flask_prod.core.kit import state_of
from tests.apps import MakeApp


def run(app: Flask, *words: str) -> Result:
    """Run a command of the group."""
    return CliRunner().invoke(prod, ["deploy", *words], obj=ScriptInfo(create_app=lambda: app))


def steps(done: Result) -> dict[str, tuple[str, str]]:
    """Return status and sentence of each step, in their order."""
    return {one["name"]: (one["status"], one["detail"]) for one in json.loads(done.output)["checks"]}


@pytest.fixture
def saved(make_app: MakeApp, tmp_path: Path) -> Flask:
    """Give an application whose database was backed up, and is gone."""
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        database.execute("INSERT INTO orders VALUES (1), (2)")
        database.commit()
    app = make_app(
        only=("health", "backups", "migrations"),
        DATABASE_URL=f"sqlite:///{path}",
        BACKUP_URL=str(tmp_path / "backups"),
    )
    state_of(app).contributions["backups"].handle.run()
    with app.app_context():
        state_of(app).contributions["database"].handle.engine.dispose()
    path.unlink()
    return app


def test_steps(saved: Flask, tmp_path: Path) -> None:
    """Everything that can be done is done in order, and what has no subject here says why."""
    done = run(saved, "recover", "--yes", "--json", "--rpo", "1h")

    found = steps(done)
    assert done.exit_code == 0, done.output
    assert list(found) == ["backup", "restore", "numbers", "migrations", "outbox", "lost", "time"]
    assert found["restore"] == ("ok", "2 rows in 1 tables, restored and compared")
    assert found["numbers"][1].startswith("sqlite has no sequences")
    assert {found[name][0] for name in ("numbers", "migrations", "outbox", "lost")} == {"skip"}
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database:
        assert database.execute("SELECT count(*) FROM orders").fetchone() == (2,)


def test_full_database(saved: Flask, tmp_path: Path) -> None:
    """A database with tables is refused, nothing after that is done, and it stays as it was."""
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database:
        database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        database.commit()

    done = run(saved, "recover", "--yes", "--json")

    assert done.exit_code == 1
    assert list(steps(done)) == ["backup", "restore"]
    assert "has tables" in steps(done)["restore"][1]
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database:
        assert database.execute("SELECT count(*) FROM orders").fetchone() == (0,)


def test_nobody_to_ask(saved: Flask, tmp_path: Path) -> None:
    """Without a terminal and --yes nothing is done."""
    done = run(saved, "recover")

    assert done.exit_code == 1
    assert done.output == "Error: Nobody can be asked here: pass --yes.\n"
    assert not (tmp_path / "shop.db").exists()


def test_too_old(saved: Flask) -> None:
    """More that is lost than allowed fails the drill, and the recovery at its end: by then the data is back."""
    late = run(saved, "recover", "--yes", "--json", "--rpo", "1s", "--lost-at", "2999-01-01 00:00:00")
    drill = run(saved, "drill", "--json", "--rto", "0s")

    assert (late.exit_code, drill.exit_code) == (1, 1)
    assert steps(late)["restore"][0] == "ok"
    assert steps(late)["time"][0] == "fail"
    assert list(steps(drill)) == ["restore", "time"]


def test_drill_touches_nothing(saved: Flask, tmp_path: Path) -> None:
    """The rehearsal restores, compares, measures, and leaves the service's database alone."""
    done = run(saved, "drill")

    assert done.exit_code == 0, done.output
    assert "RPO" in done.output.splitlines()[-1]
    assert not (tmp_path / "shop.db").exists()


def test_no_such_backup(saved: Flask) -> None:
    """A name that is none ends it before anything is touched."""
    done = run(saved, "recover", "--yes", "--json", "--backup", "shop-nothing")

    assert done.exit_code == 1
    assert steps(done)["backup"][1].startswith("there is no backup shop-nothing in ")
