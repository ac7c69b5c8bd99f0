"""Upgrades on SQLite and PostgreSQL, by the env.py that `alembic init` writes."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import create_engine, text

from flask_prod import ProdKit
from flask_prod.components.migrations.engine import Busy, MigrationError, Migrations
from flask_prod.components.migrations.guard import Destructive
from flask_prod.core.component import Check, Contribution
from tests.apps import MakeApp

from .conftest import FIRST, Build, Scripts, query, tables


def test_upgrade_and_downgrade(build: Build, scripts: Scripts, url: str) -> None:
    """What is pending is applied once, and can be undone."""
    scripts.add(
        "two", "op.add_column('items', sa.Column('price', sa.Integer))", "op.drop_column('items', 'price')"
    )
    migrations = build(url)

    assert migrations.upgrade() == ["one", "two"]
    assert migrations.upgrade() == []
    query(url, "INSERT INTO items (id, name, price) VALUES (1, 'mug', 3)")
    assert migrations.downgrade("-1") == ["two"]
    assert query(url, "SELECT * FROM items") == [(1, "mug")]
    assert migrations.downgrade("base") == ["one"]
    assert tables(url) == {"alembic_version"}


def test_failure_leaves_all_as_before(build: Build, scripts: Scripts, url: str) -> None:
    """Of two migrations of which the second fails half-way nothing stays, and the error says so."""
    scripts.add(
        "two", "op.execute('CREATE TABLE half (id INTEGER)'); op.execute('INSERT INTO nowhere VALUES (1)')"
    )

    with pytest.raises(
        MigrationError, match=r"nowhere.*\n(.*\n)?Nothing was changed: the database is at no revision"
    ):
        build(url).upgrade()

    assert tables(url) - {"alembic_version"} == set()


def test_python_error_in_a_script(build: Build, scripts: Scripts, url: str) -> None:
    """A script that raises is a failed migration with its words, not a traceback."""
    scripts.add("two", "raise KeyError('colour')")

    with pytest.raises(MigrationError, match="KeyError: 'colour'"):
        build(url).upgrade()


@pytest.mark.parametrize("how", ["op.drop_table('items')", "op.execute('DELETE FROM items')"])
def test_destructive_step_is_refused(build: Build, scripts: Scripts, url: str, how: str) -> None:
    """A step that destroys data is refused by the plan and by the guard; allowed, it is done."""
    migrations = build(url)
    migrations.upgrade()
    query(url, "INSERT INTO items (id, name) VALUES (1, 'mug')")
    scripts.add("two", how)

    assert len(migrations.plan().dangers) == 1
    with pytest.raises(Destructive, match="items"):
        migrations.upgrade()
    assert query(url, "SELECT name FROM items") == [("mug",)]

    assert migrations.upgrade(allow_destructive=True) == ["two"]


def test_history_on_an_empty_database(build: Build, scripts: Scripts, url: str) -> None:
    """What a new database gets and loses again within one upgrade held nobody's data: it needs no permission."""
    scripts.add("two", "op.execute('CREATE TABLE draft (id INTEGER, note TEXT)')")
    scripts.add("three", "op.execute('ALTER TABLE draft DROP COLUMN note'); op.drop_table('draft')")
    migrations = build(url)

    assert migrations.plan().dangers == ()
    assert migrations.upgrade() == ["one", "two", "three"]


def test_hidden_destruction_is_refused(build: Build, scripts: Scripts, url: str) -> None:
    """What no plan could know, since the script asks the database first, is refused as it runs."""
    look = "names = op.get_bind().execute(sa.text(\"SELECT 'items'\")).scalars().all()"
    scripts.add("two", f"{look}; op.execute('DROP TABLE ' + names[0])")
    migrations = build(url)
    migrations.upgrade("one")

    plan = migrations.plan()

    assert plan.sql is None
    assert plan.dangers == ()
    with pytest.raises(Destructive, match="drops the table items"):
        migrations.upgrade()
    assert "items" in tables(url)


def test_narrower_type_is_refused(build: Build, scripts: Scripts, postgres_url: str) -> None:
    """A column that gets shorter is refused, one that gets longer is not."""
    migrations = build(postgres_url)
    migrations.upgrade()
    scripts.add("two", "op.alter_column('items', 'name', type_=sa.String(40))")
    scripts.add("three", "op.alter_column('items', 'name', type_=sa.String(5))")

    assert migrations.upgrade("two") == ["two"]
    with pytest.raises(Destructive, match=r"items\.name from VARCHAR\(40\) to VARCHAR\(5\)"):
        migrations.upgrade()


OUR_CONNECTION = """
from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
"""
BATCH = """with op.batch_alter_table('items') as batch:
        batch.alter_column('name', nullable=False)
    """
BATCH_DROP = """with op.batch_alter_table('items') as batch:
        batch.drop_column('name')
    """


def test_batches_on_sqlite(build: Build, scripts: Scripts, tmp_path: Path) -> None:
    """A table that is rebuilt keeps its rows and those that refer to it; a column lost on the way is refused."""
    (scripts.folder / "env.py").write_text(OUR_CONNECTION)  # which enforces foreign keys
    url = f"sqlite:///{tmp_path / 'items.db'}"
    scripts.add(
        "two",
        "op.execute('CREATE TABLE parts (item INTEGER REFERENCES items (id) ON DELETE CASCADE)')",
    )
    migrations = build(url)
    migrations.upgrade()
    query(url, "INSERT INTO items (id, name) VALUES (1, 'mug')")
    query(url, "INSERT INTO parts VALUES (1)")
    scripts.add("three", BATCH)
    scripts.add("four", BATCH_DROP)

    assert migrations.upgrade("three") == ["three"]
    assert query(url, "SELECT item FROM parts") == [(1,)]
    with pytest.raises(Destructive, match=r"drops the column items\.name"):
        migrations.upgrade()


def test_orphans_on_sqlite(build: Build, scripts: Scripts, tmp_path: Path) -> None:
    """Foreign keys are off while SQLite migrates, so rows that would refer to nothing are looked for."""
    url = f"sqlite:///{tmp_path / 'items.db'}"
    scripts.add("two", "op.execute('CREATE TABLE parts (item INTEGER REFERENCES items (id))')")
    scripts.add("three", "op.execute('INSERT INTO parts VALUES (7)')")

    with pytest.raises(MigrationError, match="refer to nothing, among them one of parts to items"):
        build(url).upgrade()
    assert "items" not in tables(url)


def test_one_migrator_at_a_time(build: Build, scripts: Scripts, url: str) -> None:
    """While one migrates others wait, give up after their time, and are told who it is."""
    migrations = build(url)

    with migrations.alone():
        holder = migrations.holder()
        assert holder is not None
        assert holder.name.startswith("shop migrations on ")
        with pytest.raises(Busy, match=r"shop migrations on .* since \d{4}-"), migrations.alone(wait=0.2):
            pytest.fail("two migrators at once")
        assert not migrations.wait_until_free(0.1)

    assert migrations.holder() is None
    assert migrations.wait_until_free(0)


def test_many_at_once(build: Build, scripts: Scripts, url: str) -> None:
    """Six migrators at once: one applies, the others find nothing to do."""
    migrations = build(url)
    done: list[list[str]] = []
    threads = [threading.Thread(target=lambda: done.append(migrations.upgrade())) for _ in range(6)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert sorted(done, key=len) == [[]] * 5 + [["one"]]


def test_lost_lock(build: Build, scripts: Scripts, postgres_url: str) -> None:
    """A migrator whose lock is gone stops before its end, and what it did on another connection is undone."""
    held = "FROM pg_stat_activity WHERE application_name LIKE 'shop migrations on %'"
    scripts.add("two", f'op.execute("SELECT pg_terminate_backend(pid) {held}")')
    migrations = build(postgres_url)

    with pytest.raises(MigrationError, match=r"terminat|closed"):
        migrations.upgrade()

    assert tables(postgres_url) == set()
    assert migrations.holder() is None


def test_ended_holder(build: Build, scripts: Scripts, postgres_url: str) -> None:
    """`lock --release` ends the connection of whoever migrates; the next one can."""
    migrations = build(postgres_url)
    with migrations.alone():
        holder = migrations.holder()
        assert holder is not None
        assert migrations.end_holder(holder)
        assert migrations.upgrade() == ["one"]


def test_table_in_use(build: Build, scripts: Scripts, postgres_url: str) -> None:
    """A migration that would wait for a table, and make all traffic wait behind it, gives up in time."""
    migrations = build(postgres_url, MIGRATIONS_LOCK_TIMEOUT="200ms")
    migrations.upgrade()
    scripts.add("two", "op.add_column('items', sa.Column('price', sa.Integer))")
    engine = create_engine(postgres_url)

    with engine.begin() as reader:
        reader.execute(text("SELECT * FROM items")).all()
        with pytest.raises(MigrationError, match=r"MIGRATIONS_LOCK_TIMEOUT \(0.2 s\)(.*\n)*.*at one, as before"):
            migrations.upgrade()
    assert migrations.upgrade() == ["two"]
    engine.dispose()


def test_statement_timeout_of_requests(build: Build, scripts: Scripts, postgres_url: str) -> None:
    """A migration may take longer than a request's statements, and has a limit of its own."""
    scripts.add("two", "op.execute('SELECT pg_sleep(0.3)')")

    with pytest.raises(MigrationError, match="statement timeout"):
        build(postgres_url, MIGRATIONS_STATEMENT_TIMEOUT="100ms").upgrade()
    assert build(postgres_url, DATABASE_STATEMENT_TIMEOUT="100ms").upgrade() == ["one", "two"]


POOLED = """
from alembic import context
from flask import current_app

with current_app.extensions["prod"].contributions["database"].handle.engine.connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""


def test_limits_stay_out_of_pools(build: Build, scripts: Scripts, postgres_url: str) -> None:
    """A connection that migrated, with other time limits than a request's, is not the next request's."""
    (scripts.folder / "env.py").write_text(POOLED)  # as Flask-Migrate's, with an engine that requests use
    migrations = build(postgres_url, DATABASE_STATEMENT_TIMEOUT="7s")
    limits = "SELECT current_setting('statement_timeout'), current_setting('lock_timeout')"

    assert migrations.upgrade() == ["one"]
    with migrations.engine.connect() as one, migrations.engine.connect() as other:
        found = {tuple(connection.execute(text(limits)).one()) for connection in (one, other)}

    assert found == {("7s", "0")}


def test_check(build: Build, scripts: Scripts, url: str) -> None:
    """Pending revisions, several heads and tables that differ from the models are told one by one."""
    env = (scripts.folder / "env.py").read_text()
    models = "import sqlalchemy as sa\ntarget_metadata = sa.MetaData()\n"
    models += "sa.Table('items', target_metadata, sa.Column('id', sa.Integer, primary_key=True),\n"
    models += "         sa.Column('name', sa.String(20)), sa.Column('colour', sa.Text))\n"
    (scripts.folder / "env.py").write_text(env.replace("target_metadata = None", models))
    migrations = build(url)

    assert migrations.check() == ["one (What one does.) is pending: run `flask prod db upgrade`."]
    assert tables(url) == set()
    migrations.upgrade()
    assert migrations.check() == ["the models have the column items.colour, the database has not."]
    scripts.add("two", "op.add_column('items', sa.Column('colour', sa.Text))")
    migrations.upgrade()
    assert migrations.check() == []
    scripts.add("three", "pass", down_revision="one")
    assert "There are several heads: three, two." in migrations.check()[0]


def test_flask_alembic_layout(build: Build, tmp_path: Path, url: str) -> None:
    """A folder of scripts without env.py, as Flask-Alembic has it, is run as it is."""
    scripts = Scripts(tmp_path / "migrations", tmp_path / "migrations")
    (scripts.folder / "script.py.mako").write_text("")
    scripts.add("one", FIRST)
    migrations = build(url)

    assert migrations.plan().sql is not None
    assert migrations.upgrade() == ["one"]
    assert migrations.check() == []


def test_flask_migrate_layout(make_app: MakeApp, scripts: Scripts, tmp_path: Path) -> None:
    """An env.py that takes engine and models from Flask-SQLAlchemy, with alembic.ini inside, works."""
    from flask_sqlalchemy import SQLAlchemy

    (scripts.folder / "alembic.ini").write_text(
        "[alembic]\n\n[loggers]\nkeys = root\n[handlers]\nkeys =\n"
        "[formatters]\nkeys =\n[logger_root]\nlevel = WARN\nhandlers =\n"
    )
    (scripts.folder / "env.py").write_text(FLASK_MIGRATE)
    db = SQLAlchemy()
    app = Flask("shop", root_path=str(tmp_path))
    app.config.update(ENVIRONMENT="test", SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path / 'theirs.db'}")
    db.init_app(app)
    app.extensions["migrate"] = type("Migrate", (), {"db": db})
    kit = ProdKit(app, only=("migrations",))
    with app.app_context():
        migrations = kit.migrations

        assert "CREATE TABLE items" in (migrations.plan().sql or "")
        assert migrations.upgrade() == ["one"]
        assert migrations.check() == ["no model has the table items of the database."]
        db.engine.dispose()
    app.extensions["prod"].lifecycle.close()
    assert "items" in tables(f"sqlite:///{tmp_path / 'theirs.db'}")


FLASK_MIGRATE = """
from logging.config import fileConfig
from alembic import context
from flask import current_app

config = context.config
fileConfig(config.config_file_name)
db = current_app.extensions["migrate"].db
config.set_main_option("sqlalchemy.url", str(db.engine.url))

if context.is_offline_mode():
    context.configure(url=config.get_main_option("sqlalchemy.url"), literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    with db.engine.connect() as connection:
        context.configure(connection=connection, target_metadata=db.metadata)
        with context.begin_transaction():
            context.run_migrations()
"""


def test_no_folder(build: Build, url: str) -> None:
    """Without migrations the commands say where they looked."""
    with pytest.raises(MigrationError, match="alembic init migrations"):
        build(url).plan()


def test_check_of_health(build: Build, scripts: Scripts, url: str) -> None:
    """The check warns while something is pending; once up to date it never asks the database again."""
    migrations = build(url)

    finding = checks_of(migrations)[0].probe()
    assert finding is not None
    assert finding.status == ("warn" if url.startswith("postgres") else "ok")
    migrations.upgrade()
    (fresh,) = checks_of(build(url))
    assert fresh.probe() is None
    query(url, "UPDATE alembic_version SET version_num = 'another'")
    assert fresh.probe() is None


def test_failing_check(build: Build, scripts: Scripts, postgres_url: str) -> None:
    """MIGRATIONS_PENDING=fail keeps an instance out of the load balancer until the migration ran."""
    (check,) = checks_of(build(postgres_url, MIGRATIONS_PENDING="fail"))

    finding = check.probe()
    assert check.ready
    assert finding is not None
    assert finding.status == "fail"
    assert finding.detail == "the database is at no revision, the code at one: run `flask prod db upgrade`"
    assert checks_of(build(postgres_url, MIGRATIONS_PENDING="ignore")) == ()


def checks_of(migrations: Migrations) -> tuple[Check, ...]:
    contributions: Mapping[str, Contribution[Any]] = migrations.app.extensions["prod"].contributions
    return contributions["migrations"].checks
