"""What a release finds in a database that a later one has migrated: more than it knows, or less than it needs."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from flask.cli import ScriptInfo

from flask_prod.cli import prod
from flask_prod.components.migrations.engine import MigrationError, Migrations
from flask_prod.components.migrations.older import obstacles

from .conftest import Build, Scripts

MODELS = """
from sqlalchemy import Column, Integer, MetaData, String, Table

target_metadata = MetaData()
Table("items", target_metadata, Column("id", Integer, primary_key=True), Column("name", String(20)))
"""
"""What the older release has, which wrote `one`."""


MORE = (
    "op.create_table('notes', sa.Column('id', sa.Integer, primary_key=True))",
    "op.add_column('items', sa.Column('price', sa.Integer))",
    "op.add_column('items', sa.Column('tax', sa.Integer, nullable=False, server_default='0'))",
    "op.create_index('by_name', 'items', ['name'])",
    "op.add_column('items', sa.Column('sku', sa.String(9)))",
    "op.create_index('skus', 'items', ['sku'], unique=True)",
)
GIVEN = "op.add_column('items', sa.Column('price', sa.Integer, nullable=False))"


def older(build: Build, scripts: Scripts, url: str) -> Migrations:
    """Return the migrations of the older release; the database is at its newest."""
    env = scripts.folder / "env.py"
    env.write_text(env.read_text().replace("target_metadata = None", MODELS))
    migrations = build(url)
    migrations.upgrade()
    return migrations


def later(migrations: Migrations, scripts: Scripts, *upgrade: str) -> list[str]:
    """Let a later release migrate, forget its script, as an older release has none, and look."""
    scripts.add("two", "\n    ".join(upgrade))
    migrations.upgrade(allow_destructive=True)
    (scripts.versions / "two.py").unlink()
    return obstacles(migrations)


def test_more(build: Build, scripts: Scripts, url: str) -> None:
    """What is merely more, and asks nothing of what the older release writes, is no obstacle."""
    migrations = older(build, scripts, url)
    assert obstacles(migrations) == []

    assert later(migrations, scripts, *MORE) == []


@pytest.mark.parametrize(
    ("upgrade", "words"),
    [
        ("op.drop_column('items', 'name')", "the models have the column items.name"),
        ("op.alter_column('items', 'name', new_column_name='title')", "the models have the column items.name"),
        ("op.rename_table('items', 'goods')", "the models have the table items"),
        ("op.create_index('names', 'items', ['name'], unique=True)", "what this release writes may be refused"),
        ("op.create_unique_constraint('one_name', 'items', ['name'])", "what this release writes may be refused"),
        ("op.alter_column('items', 'name', nullable=False)", "items.name must have a value now."),
        ("op.alter_column('items', 'name', type_=sa.String(9))", "items.name: type is VARCHAR(length=9)"),
        (GIVEN, "items.price is new, and must have a value"),
    ],
)
def test_less(build: Build, scripts: Scripts, postgres_url: str, upgrade: str, words: str) -> None:
    """What the older release needs and does not find is one, and so is what refuses its rows."""
    found = later(older(build, scripts, postgres_url), scripts, upgrade)

    assert any(words in obstacle for obstacle in found), found


def test_nothing_to_compare(build: Build, scripts: Scripts, tmp_path: Path) -> None:
    """Without models nobody can tell, which is an error and no yes."""
    migrations = build(f"sqlite:///{tmp_path}/items.db")
    migrations.upgrade()

    with pytest.raises(MigrationError, match="No model says what this release needs"):
        obstacles(migrations)


def test_command(build: Build, scripts: Scripts, tmp_path: Path) -> None:
    """The command says yes or what stands in the way, by its exit code too."""

    migrated = older(build, scripts, f"sqlite:///{tmp_path}/items.db")

    def run() -> tuple[int, str]:
        done = CliRunner().invoke(prod, ["db", "fits"], obj=ScriptInfo(create_app=lambda: migrated.app))
        return done.exit_code, done.output

    assert run() == (0, "This release can serve with the database as it is.\n")
    later(migrated, scripts, "op.drop_table('items')")
    assert run() == (1, "the models have the table items, the database has not.\n")
