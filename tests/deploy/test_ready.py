"""`flask prod deploy ready`: what must hold before a deployment, and how it is said when it does not."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask import Flask
from flask.cli import ScriptInfo

from flask_prod.cli.group import prod
from flask_prod.core.kit import state_of
from flask_prod.deploy import ready
from sample_app import create_app
from tests.apps import MakeApp
from tests.deploy.test_scripts import Stage
from tests.sample_app.shop import ENVIRONMENT, prepare


class Ready:
    """`flask prod deploy ready` of one application."""

    def __init__(self, app: Flask) -> None:
        self.app = app

    def run(self, *words: str) -> Result:
        """Run the command."""
        info = ScriptInfo(create_app=lambda: self.app)
        return CliRunner().invoke(prod, ["deploy", "ready", *words], obj=info)

    def found(self, *words: str) -> dict[str, tuple[str, str]]:
        """Return status and sentence of each check."""
        checks = json.loads(self.run("--json", *words).output)["checks"]
        return {one["name"]: (one["status"], one["detail"]) for one in checks}


@pytest.fixture
def app(make_app: MakeApp, tmp_path: Path) -> Flask:
    """Give an application with a database and a place for backups."""
    with closing(sqlite3.connect(tmp_path / "x.db")) as database:
        database.execute("CREATE TABLE items (id INTEGER)")
    return make_app(
        only=("health", "backups", "redis"), DATABASE_URL=f"sqlite:///{tmp_path / 'x.db'}",
        BACKUP_URL=str(tmp_path / "backups"), REDIS_URL="redis://127.0.0.1:9/0",
    )  # fmt: skip


@pytest.fixture
def checked(app: Flask) -> Ready:
    """Give the command."""
    return Ready(app)


def test_ready_tells_each_thing(checked: Ready, tmp_path: Path) -> None:
    """A database that answers is fine, no backup and a Redis that is away are not, and one failure fails all."""
    code = checked.run().exit_code
    found = checked.found("--disk", "0")

    assert code == 1
    assert found["database"][0] == "ok"
    assert found["redis"][0] in ("warn", "fail")
    assert found["backup"] == ("fail", "there is none: run `flask prod db backup`")
    assert found["disk"][0] == "ok"
    assert found["image"][0] == found["signature"][0] == found["config"][0] == "skip"
    assert checked.found("--disk", "100")["disk"][0] == "fail"


def test_ready_knows_the_age_of_the_backup(checked: Ready, app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backup of an hour ago is one to go back to; one of two days ago is not."""
    made = state_of(app).contributions["backups"].handle.run()
    fresh = checked.found()["backup"]

    class Later(ready.datetime):  # type: ignore[misc, name-defined]  # the module's own name
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return made.made_at + timedelta(days=2)

    monkeypatch.setattr(ready, "datetime", Later)

    assert fresh[0] == "ok"
    assert checked.found()["backup"] == ("fail", f"{made.name} is 48 hours old: run `flask prod db backup`")


def test_ready_tells_what_changes(checked: Ready, app: Flask, tmp_path: Path) -> None:
    """Settings that will be otherwise are named with both values, secrets by their fingerprints."""
    rows = [{"key": row.key, "value": state_of(app).settings.shown(row)} for row in state_of(app).settings.rows]
    before = tmp_path / "before.json"
    before.write_text(json.dumps(rows))
    same = checked.found("--config-before", str(before))["config"]
    changed = [{**row, "value": "7.0"} if row["key"] == "DRAIN_SECONDS" else row for row in rows]
    before.write_text(json.dumps(changed))

    assert same == ("ok", "nothing changes")
    assert checked.found("--config-before", str(before))["config"] == ("ok", "1 changed: DRAIN_SECONDS 7.0 -> 0.0")


@pytest.mark.deploy
def test_ready_asks_for_image_and_signature(
    checked: Ready, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that no registry has fails, and so does one that somebody else has signed."""
    stage = Stage(tmp_path, tmp_path)
    missing = '*"missing:1") echo "manifest unknown" >&2; exit 1 ;;'
    forged = 'cosign*"forged:1") echo "no match" >&2; exit 1 ;;'
    stage.answer(missing, forged, names=("docker", "cosign"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))

    good = checked.found("--image", "shop:1", "--cosign", "--key cosign.pub")

    assert (good["image"][0], good["signature"][0]) == ("ok", "ok")
    assert "cosign verify --key cosign.pub shop:1" in (tmp_path / "calls").read_text()
    assert checked.found("--image", "missing:1")["image"] == ("fail", "docker: manifest unknown")
    assert checked.found("--image", "forged:1", "--cosign", "--key k")["signature"] == ("fail", "cosign: no match")


@pytest.mark.deploy
def test_database_that_is_ahead(tmp_path: Path) -> None:
    """A newer release has migrated: worth a word, and a failure where this one could not serve any more."""
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    prepare(url, tmp_path)
    app = create_app({**ENVIRONMENT, "DATABASE_URL": url, "DATA_DIR": str(tmp_path)})
    info = ScriptInfo(create_app=lambda: app)
    try:
        before = CliRunner().invoke(prod, ["db", "fits"], obj=info)
        with closing(sqlite3.connect(tmp_path / "shop.db")) as database:
            database.execute("UPDATE alembic_version SET version_num = '0009'")
            database.commit()
        ahead = Ready(app).found()["migrations"]
        with closing(sqlite3.connect(tmp_path / "shop.db")) as database:
            database.execute("ALTER TABLE products RENAME COLUMN name TO title")
            database.commit()
        after = CliRunner().invoke(prod, ["db", "fits"], obj=info)
        found = Ready(app).found()["migrations"]
    finally:
        state_of(app).lifecycle.close()

    assert (before.exit_code, after.exit_code) == (0, 1)
    assert ahead == ("warn", "a later release has migrated the database; this one can serve with it")
    assert found[0] == "fail"
    assert "this code does not know the database as it is" in found[1]
