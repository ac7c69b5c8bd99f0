"""Upgrades on MariaDB, where each change of a table is kept at once, and a lock is a name."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import text

from flask_prod.components.migrations.engine import Busy, MigrationError
from flask_prod.components.migrations.guard import Destructive
from tests.mariadb import MariaDB
from tests.servers import wait_for

from .conftest import Build, Scripts, tables
from .test_engine import OUR_CONNECTION, checks_of

PRICE = ("two", "op.add_column('items', sa.Column('price', sa.Integer))", "op.drop_column('items', 'price')")


def test_upgrade_and_downgrade(build: Build, scripts: Scripts, mariadb_url: str) -> None:
    """What is pending is told, shown, applied once, compared with the models' tables, and undone."""
    scripts.add(*PRICE)
    migrations = build(mariadb_url)

    assert "CREATE TABLE items" in (migrations.plan().sql or "")
    assert tables(mariadb_url) == set()
    assert migrations.check()[0].startswith("one (What one does.) is pending")
    assert migrations.upgrade() == ["one", "two"]
    assert migrations.upgrade() == []
    assert migrations.check() == []
    assert [check.probe() for check in checks_of(migrations)] == [None]
    scripts.add("three", "op.drop_table('items')")
    with pytest.raises(Destructive, match="drops the table items"):
        migrations.upgrade()
    assert migrations.downgrade("one") == ["two"]
    assert migrations.downgrade("base") == ["one"]
    assert tables(mariadb_url) == {"alembic_version"}


def test_types_of_mariadb(build: Build, scripts: Scripts, mariadb_url: str) -> None:
    """What keeps all values is no danger, as the server itself calls its types; what may lose some is one."""
    kinds = {"n": "sa.Integer()", "u": "mysql.INTEGER(unsigned=True)", "t": "sa.Text()", "b": "sa.Boolean()",
             "s": "sa.String(20)", "d": "sa.DateTime()", "p": "sa.Numeric(8, 2)", "f": "sa.Double()"}  # fmt: skip
    columns = ", ".join(f"sa.Column('{name}', {kind})" for name, kind in kinds.items())
    imports = "from sqlalchemy.dialects import mysql"
    scripts.add(
        "two", f"{imports}; op.create_table('all', sa.Column('id', sa.Integer, primary_key=True), {columns})"
    )
    build(mariadb_url).upgrade()
    changes = [
        f"op.alter_column('all', '{name}', existing_type={kind}, nullable=False)" for name, kind in kinds.items()
    ]
    scripts.add("three", "; ".join([imports, *changes]))
    scripts.add("four", f"{imports}; op.alter_column('all', 't', type_=mysql.LONGTEXT())")
    scripts.add("five", "op.alter_column('all', 't', type_=sa.Text())")

    assert build(mariadb_url).upgrade("four") == ["three", "four"]
    with pytest.raises(Destructive, match=r"changes all\.t from LONGTEXT to TEXT"):
        build(mariadb_url).upgrade()


def test_one_migrator_at_a_time(build: Build, scripts: Scripts, mariadb: MariaDB, mariadb_url: str) -> None:
    """Three at once: one applies. Who is kept out is told who holds the lock; other databases have their own."""
    migrations = build(mariadb_url)
    done: list[list[str]] = []
    threads = [threading.Thread(target=lambda: done.append(migrations.upgrade())) for _ in range(3)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    with mariadb.database() as other, migrations.alone():
        assert build(other).upgrade() == ["one"]
        with (
            pytest.raises(Busy, match=r"shop from 127\.0\.0\.1:\d+ .* since \d{4}-"),
            migrations.alone(wait=0.2),
        ):
            pytest.fail("two migrators at once")

    assert sorted(done, key=len) == [[]] * 2 + [["one"]]
    assert migrations.holder() is None


def test_long_name_of_a_database(build: Build, scripts: Scripts, mariadb: MariaDB) -> None:
    """Whatever a database is called, its lock has a name that MySQL takes: 64 characters at most."""
    name = "shop_".ljust(64, "x")
    mariadb.execute(f"CREATE DATABASE {name}")

    with build(mariadb.url(name)).alone():
        used = mariadb.execute(f"SELECT is_used_lock(concat('flask-prod migrations ', md5('{name}')))")

    assert used[0] is not None


@pytest.mark.parametrize("env", ["", OUR_CONNECTION])
def test_long_statement(build: Build, scripts: Scripts, mariadb_url: str, env: str) -> None:
    """A migration may take longer than a request's statements, whoever connects, and has a limit of its own."""
    if env:
        (scripts.folder / "env.py").write_text(env)
    scripts.add("two", "op.execute('SELECT sleep(0.4)')")

    with pytest.raises(MigrationError, match="max_statement_time"):
        build(mariadb_url, MIGRATIONS_STATEMENT_TIMEOUT="100ms").upgrade()
    assert build(mariadb_url, DATABASE_STATEMENT_TIMEOUT="100ms").upgrade() == ["two"]


def test_table_in_use(build: Build, scripts: Scripts, mariadb_url: str) -> None:
    """A migration that would wait for a table gives up in time, and says which setting that is."""
    migrations = build(mariadb_url, MIGRATIONS_LOCK_TIMEOUT="1s")
    migrations.upgrade()
    scripts.add(*PRICE)
    engine: Any = migrations.engine

    with engine.begin() as reader:
        reader.execute(text("SELECT * FROM items")).all()
        with pytest.raises(MigrationError, match=r"MIGRATIONS_LOCK_TIMEOUT \(1 s\)(.*\n)*.*still says one, but"):
            migrations.upgrade()
    assert migrations.upgrade() == ["two"]


def test_ended_holder(build: Build, scripts: Scripts, mariadb_url: str) -> None:
    """`lock --release` ends the connection of whoever migrates, which then stops before its next step."""
    migrations = build(mariadb_url)
    with migrations.alone() as run:
        holder = migrations.holder()
        assert holder is not None
        assert migrations.end_holder(holder)
        wait_for(lambda: migrations.holder() is None)
        assert build(mariadb_url).upgrade() == ["one"]
        with pytest.raises(MigrationError, match=r"MySQL server has gone away|Lost connection|killed"):
            run.upgrade()
