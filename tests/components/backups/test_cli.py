"""`flask prod db backup`, `backups`, `verify` and `restore` as somebody types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask import Flask
from flask.cli import ScriptInfo

from flask_prod.cli import prod
from tests.apps import MakeApp

from .conftest import PG_BIN, execute, rows


@pytest.fixture
def app(make_app: MakeApp, sqlite_url: str, tmp_path: Path) -> Flask:
    """Give an application whose backups go to a directory."""
    return make_app(only=("backups",), DATABASE_URL=sqlite_url, BACKUP_URL=str(tmp_path / "backups"))


def run(app: Flask, *words: str) -> Result:
    return CliRunner().invoke(prod, ["db", *words], obj=ScriptInfo(create_app=lambda: app))


def test_day(app: Flask, tmp_path: Path, sqlite_url: str) -> None:
    """Back up, list, verify, restore: each says in a line what it did."""
    assert run(app, "backups").output == "There is no backup yet.\n"
    made = run(app, "backup")
    assert made.exit_code == 0, made.output
    assert "6 rows in 4 tables" in made.output
    (listed,) = json.loads(run(app, "backups", "--json").output)
    assert listed["name"] in run(app, "backups").output
    assert f"{listed['name']} is whole: 6 rows in 4 tables" in run(app, "verify").output

    copy = f"sqlite:///{tmp_path / 'copy.db'}"
    assert "was restored: 6 rows" in run(app, "restore", "latest", "--into", copy, "--yes").output
    assert rows(copy, "items") == rows(sqlite_url, "items")


def test_nobody_to_ask(app: Flask) -> None:
    """Without a terminal a restore needs --yes."""
    run(app, "backup")
    result = run(app, "restore", "latest", "--into", "self", "--overwrite")

    assert result.exit_code == 1
    assert "pass --yes" in result.output


def test_damaged(app: Flask, tmp_path: Path) -> None:
    """`verify` exits with 1 and says what is damaged; the list names it."""
    run(app, "backup")
    (path,) = (tmp_path / "backups").glob("*.json")
    path.write_text(path.read_text().replace('"shop"', '"shoq"'))

    assert "the manifest is damaged" in run(app, "backups").output
    result = run(app, "verify", path.stem)
    assert result.exit_code == 1
    assert "is damaged" in result.output


def test_name_is_typed(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the name of the database is typed before it is overwritten."""
    run(app, "backup")
    monkeypatch.setattr("flask_prod.components.backups.cli._is_terminal", lambda: True)
    words = ["db", "restore", "latest", "--into", "self", "--overwrite"]
    info = ScriptInfo(create_app=lambda: app)

    wrong = CliRunner().invoke(prod, words, obj=info, input="shop\n")
    right = CliRunner().invoke(prod, words, obj=info, input="items.db\n")

    assert (wrong.exit_code, right.exit_code) == (1, 0)
    assert "another name" in wrong.output


def test_database_that_cannot_be_read(make_app: MakeApp, postgres_url: str, tmp_path: Path) -> None:
    """A server that is away, and a table that the user may not read, are a sentence and no traceback."""
    settings: dict[str, Any] = {"only": ("backups",), "BACKUP_URL": str(tmp_path), "BACKUP_PG_BIN": str(PG_BIN)}
    execute(postgres_url, "CREATE TABLE secrets (id INTEGER)", "CREATE ROLE reader LOGIN")
    try:
        away = run(make_app(DATABASE_URL="postgresql://shop:canary@127.0.0.1:1/shop", **settings), "backup")
        denied = run(make_app(DATABASE_URL=postgres_url.replace("postgres@", "reader@"), **settings), "backup")
    finally:
        execute(postgres_url, "DROP ROLE reader")

    assert (away.exit_code, denied.exit_code) == (1, 1)
    assert "Error: The database shop cannot be reached: connection failed" in away.output
    assert "canary" not in away.output
    assert "cannot be read: permission denied for table secrets. A backup needs all of it" in denied.output
    assert list(tmp_path.iterdir()) == []
