from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text

from flask_prod.components.jobs.outbox.table import outbox_table
from flask_prod.components.migrations import MigrationError
from flask_prod.core.kit import state_of
from sample_app.models import Base
from sample_app.prepare import prepare_database
from sample_app.seed import SHELVES, products_of
from tests.sample_app.conftest import MakeShopApp
from tests.sample_app.shop import ENVIRONMENT

ROOT = Path(__file__).parents[2]

BROKEN = """
from alembic import op

revision = "0001"
down_revision = None


def upgrade():
    op.execute("CREATE TABLE half_done (id INTEGER)")
    op.execute("INSERT INTO no_such_table VALUES (1)")
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path, postgres_url: str) -> str:
    """Give the address of an empty database of each kind."""
    return f"sqlite:///{tmp_path / 'empty.db'}" if request.param == "sqlite" else postgres_url


@pytest.fixture
def broken_migrations(tmp_path: Path) -> Path:
    """Give a folder with a migration that fails half-way."""
    folder = tmp_path / "migrations"
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").write_text((ROOT / "sample_app/migrations/env.py").read_text())
    (folder / "versions" / "0001_broken.py").write_text(BROKEN)
    return folder


def test_several_at_once_fill_the_shop_once(empty_url: str, tmp_path: Path) -> None:
    """Four processes prepare one new database together: all succeed, and there are 200 products."""
    command = [sys.executable, "-m", "flask", "--app", "sample_app", "prepare"]
    env = {**os.environ, **ENVIRONMENT, "DATABASE_URL": empty_url, "DATA_DIR": str(tmp_path)}
    processes = [
        subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(4)
    ]
    outputs = [process.communicate(timeout=60)[0] for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0, 0], outputs
    assert sum("with 200 products" in output for output in outputs) == 1
    assert _count(empty_url, "products") == 200


def test_again_changes_nothing(shop_app: MakeShopApp) -> None:
    """A database that is prepared is left alone."""
    result = shop_app().test_cli_runner().invoke(args=["prepare"])

    assert result.exit_code == 0
    assert result.output == "The database is ready.\n"


def test_failing_migration_changes_nothing(shop_app: MakeShopApp, empty_url: str, broken_migrations: Path) -> None:
    """A migration that fails half-way leaves no table behind and names what failed."""
    app = shop_app(DATABASE_URL=empty_url, MIGRATIONS_DIR=str(broken_migrations))

    with app.app_context(), pytest.raises(MigrationError, match="no_such_table"):
        prepare_database()

    engine = create_engine(empty_url)
    assert inspect(engine).get_table_names() == []
    engine.dispose()


def test_failing_migration_is_told(shop_app: MakeShopApp, broken_migrations: Path, tmp_path: Path) -> None:
    """`flask prepare` ends with 1 and says in words what failed, that nothing was changed, and what to do."""
    app = shop_app(DATABASE_URL=f"sqlite:///{tmp_path / 'other.db'}", MIGRATIONS_DIR=str(broken_migrations))

    result = app.test_cli_runner().invoke(args=["prepare"])

    assert result.exit_code == 1
    assert "could not be upgraded: no such table: no_such_table" in result.output
    assert "Nothing was changed" in result.output
    assert "Traceback" not in result.output


def test_database_of_a_newer_shop_is_told(shop_app: MakeShopApp) -> None:
    """A revision that this version does not know is a failed migration, not a crash."""
    app = shop_app()
    engine = state_of(app).contributions["database"].handle.engine
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    result = app.test_cli_runner().invoke(args=["prepare"])

    assert result.exit_code == 1
    assert "9999" in result.output


def test_unreachable_database_is_told(shop_app: MakeShopApp) -> None:
    """Without a server `flask prepare` ends with 1 and names DATABASE_URL, not the password in it."""
    app = shop_app(DATABASE_URL="postgresql://shop:top-secret@127.0.0.1:1/shop")

    result = app.test_cli_runner().invoke(args=["prepare"])

    assert result.exit_code == 1
    assert "cannot be reached" in result.output
    assert "DATABASE_URL" in result.output
    assert "Correct the migration" not in result.output
    assert "top-secret" not in result.output


def test_data_directory_that_is_none_is_told(shop_app: MakeShopApp, tmp_path: Path) -> None:
    """Where the SQLite file cannot be written `flask prepare` says so and ends with 1."""
    (tmp_path / "file").write_text("")
    app = shop_app(DATABASE_URL="", DATA_DIR=str(tmp_path / "file" / "data"))

    result = app.test_cli_runner().invoke(args=["prepare"])

    assert result.exit_code == 1
    assert "cannot be written" in result.output


def test_migrations_make_the_tables_of_the_models(shop_app: MakeShopApp, empty_url: str) -> None:
    """What the migrations build is what the models say."""
    app = shop_app(DATABASE_URL=empty_url)
    engine = state_of(app).contributions["database"].handle.engine
    with app.app_context():
        prepare_database()

    with engine.connect() as connection:
        wanted: Any = [Base.metadata, outbox_table("jobs_outbox").metadata]
        assert compare_metadata(MigrationContext.configure(connection), wanted) == []


def test_seed_is_the_same_everywhere() -> None:
    """The goods do not depend on the machine or the moment, and every name is used once."""
    once = [(p.slug, p.price_cents, p.stock) for shelf in SHELVES for p in products_of(shelf)]

    assert once == [(p.slug, p.price_cents, p.stock) for shelf in SHELVES for p in products_of(shelf)]
    assert len({slug for slug, *_ in once}) == len(once) == 200
    assert once[0] == ("nore-mug-slate", 1250, 40)


def test_every_product_has_its_picture() -> None:
    """Each motif is a symbol of the sprite, and each finish has a colour in the style sheet."""
    static = ROOT / "sample_app" / "static"
    sprite, css = (static / "pictures.svg").read_text(), (static / "shop.css").read_text()

    for shelf in SHELVES:
        for product in products_of(shelf):
            assert f'id="{product.motif}"' in sprite
            assert f".hue-{product.hue} " in css


def test_demo_admin_exists_in_development_only(shop_app: MakeShopApp, tmp_path: Path) -> None:
    """The account whose password everybody knows is not made anywhere else."""
    for environment, expected in (("test", 0), ("development", 1)):
        url = f"sqlite:///{tmp_path / environment}.db"
        result = shop_app(DATABASE_URL=url, ENVIRONMENT=environment).test_cli_runner().invoke(args=["prepare"])
        assert result.exit_code == 0, result.output
        assert _count(url, "users") == expected


def _count(url: str, table: str) -> int:
    engine = create_engine(url)
    with engine.connect() as connection:
        rows = len(connection.execute(text(f"SELECT id FROM {table}")).all())
    engine.dispose()
    return rows
