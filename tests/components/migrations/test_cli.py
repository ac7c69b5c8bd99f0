"""`flask prod db upgrade`, `downgrade`, `check` and `lock` as somebody types them."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from flask.cli import ScriptInfo

from flask_prod.cli import prod
from flask_prod.components.migrations.engine import Migrations
from tests.servers import Postgres

from .conftest import Build, Scripts, query, tables


@pytest.fixture
def migrations(build: Build, scripts: Scripts, tmp_path: Path) -> Migrations:
    """Give migrations of an SQLite file."""
    return build(f"sqlite:///{tmp_path / 'items.db'}")


def run(migrations: Migrations, *words: str) -> Result:
    return CliRunner().invoke(prod, ["db", *words], obj=ScriptInfo(create_app=lambda: migrations.app))


def test_sql_only(migrations: Migrations, tmp_path: Path) -> None:
    """`--sql` prints what would be run, and runs nothing."""
    result = run(migrations, "upgrade", "--sql")

    assert result.exit_code == 0, result.output
    assert "-- one (What one does.)" in result.output
    assert "CREATE TABLE items" in result.output
    assert tables(f"sqlite:///{tmp_path / 'items.db'}") == set()


def test_upgrade(migrations: Migrations) -> None:
    """The SQL comes first, then what was applied; the next time there is nothing to do."""
    result = run(migrations, "upgrade", "--yes")

    assert result.exit_code == 0, result.output
    assert result.output.index("CREATE TABLE items") < result.output.index("Applied one.")
    assert run(migrations, "upgrade").output == "The database is up to date (one).\n"


@pytest.mark.parametrize("words", [("upgrade", "--yes"), ("downgrade", "-1"), ("check",), ("lock",)])
@pytest.mark.parametrize("address", ["postgresql://shop:canary@127.0.0.1:1/shop", "mariadb://127.0.0.1:1/shop"])
def test_database_that_is_away(build: Build, scripts: Scripts, address: str, words: tuple[str, ...]) -> None:
    """Each command says in a sentence that the database cannot be reached, and what names it: no traceback."""
    result = run(build(address), *words)

    assert result.exit_code == 1
    assert result.output.startswith("Error: The database cannot be reached: ")
    assert result.output.endswith("DATABASE_URL says where it is, and with which user and password.\n")
    assert "canary" not in result.output


def test_revision_that_may_not_be_read(
    build: Build, scripts: Scripts, postgres_url: str, shared_postgres: Postgres
) -> None:
    """A user without the right to read the table of revisions is told so in a sentence."""
    build(postgres_url).upgrade()
    query(postgres_url, "CREATE ROLE nosy LOGIN")
    try:
        result = run(build(postgres_url.replace("postgres@", "nosy@")), "check")
    finally:
        query(postgres_url, "DROP ROLE nosy")

    assert result.exit_code == 1
    assert "does not tell its revision: permission denied for table alembic_version" in result.output


def test_nobody_to_ask(migrations: Migrations) -> None:
    """Without a terminal and without --yes nothing is done."""
    result = run(migrations, "upgrade")

    assert result.exit_code == 1
    assert "pass --yes" in result.output


def test_destructive(migrations: Migrations, scripts: Scripts) -> None:
    """Each destructive step is named, with the option that allows it."""
    run(migrations, "upgrade", "--yes")
    scripts.add("two", "op.drop_table('items')")

    refused = run(migrations, "upgrade", "--yes")
    assert refused.exit_code == 1
    assert "  - drops the table items\n" in refused.output
    assert "--allow-destructive" in refused.output

    assert run(migrations, "upgrade", "--yes", "--allow-destructive").exit_code == 0


def test_downgrade(migrations: Migrations) -> None:
    """A downgrade needs the option in any case."""
    run(migrations, "upgrade", "--yes")

    assert "drops the table items" in run(migrations, "downgrade", "-1", "--yes").output
    result = run(migrations, "downgrade", "-1", "--yes", "--allow-destructive")
    assert result.output.endswith("Undone: one.\n")
    assert run(migrations, "downgrade", "base").output == "There is nothing to undo (no revision).\n"


def test_check(migrations: Migrations) -> None:
    """`check` exits with 1 while something is pending, with 0 afterwards."""
    assert run(migrations, "check").exit_code == 1
    run(migrations, "upgrade", "--yes")
    assert run(migrations, "check").exit_code == 0


def test_lock(migrations: Migrations) -> None:
    """`lock` shows the holder and exits with 1; a holder on this host is ended by its process."""
    with migrations.alone():
        held = run(migrations, "lock")
        ended = run(migrations, "lock", "--release", "--yes")
        waited = run(migrations, "lock", "--wait", "50ms")
    free = run(migrations, "lock", "--wait")

    assert (held.exit_code, ended.exit_code, waited.exit_code, free.exit_code) == (1, 1, 1, 0)
    assert "shop migrations on" in held.output
    assert "the lock ends with it" in ended.output
    assert free.output == "Nobody migrates.\n"
