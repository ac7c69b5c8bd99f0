"""What destroys data is read from SQL alone."""

from __future__ import annotations

import pytest

from flask_prod.components.migrations.danger import Known, dangers, loses, statements

TYPES = {
    ("items", "name"): "VARCHAR(20)", ("items", "price"): "INTEGER", ("shop.items", "price"): "INTEGER",
    ("items", "note"): "LONGTEXT",
}  # fmt: skip

DESTROY = {
    "DROP TABLE items": "drops the table items",
    "drop table if exists shop.items": "drops the table shop.items",
    'DROP TABLE "order"': "drops the table order",
    "ALTER TABLE items DROP COLUMN name": "drops the column items.name",
    "ALTER TABLE items DROP name": "drops the column items.name",
    "ALTER TABLE items DROP COLUMN IF EXISTS key": "drops the column items.key",
    "ALTER TABLE `items` DROP COLUMN `index`": "drops the column items.index",
    "ALTER TABLE items ADD COLUMN a INT, DROP COLUMN b": "drops the column items.b",
    "TRUNCATE items": "empties the table items",
    "TRUNCATE TABLE ONLY items": "empties the table items",
    "DELETE FROM items WHERE id > 3": "deletes rows of items",
    "WITH old AS (DELETE FROM items RETURNING *) SELECT * FROM old": "deletes rows of items",
    "DROP SCHEMA shop": "drops all of shop",
    "DROP SEQUENCE counter": "drops the sequence counter",
    "DROP TYPE mood CASCADE": "drops what depends on mood",
    "DO $$ BEGIN EXECUTE 1; DROP TABLE items; END $$": "drops the table items",
    "/* quick */ DROP /* now */ TABLE items -- bye": "drops the table items",
    "ALTER TABLE items ALTER COLUMN name TYPE VARCHAR(10)": "changes items.name from VARCHAR(20) to VARCHAR(10)",
    "ALTER TABLE items ALTER name SET DATA TYPE INTEGER USING name::integer":
        "changes items.name from VARCHAR(20) to INTEGER",
    "ALTER TABLE shop.items ALTER COLUMN price TYPE SMALLINT": "changes shop.items.price from INTEGER to SMALLINT",
    "ALTER TABLE items MODIFY name VARCHAR(10) NOT NULL": "changes items.name from VARCHAR(20) to VARCHAR(10)",
    "ALTER TABLE items CHANGE name title VARCHAR(10)": "changes items.name from VARCHAR(20) to VARCHAR(10)",
    "/*!50000 DROP TABLE items */": "drops the table items",
    "/*M! TRUNCATE items */": "empties the table items",
    "ALTER TABLE items CHANGE COLUMN `price` `cents` SMALLINT NOT NULL":
        "changes items.price from INTEGER to SMALLINT",
    "ALTER TABLE items MODIFY price INTEGER UNSIGNED": "changes items.price from INTEGER to INTEGER UNSIGNED",
    "ALTER TABLE items MODIFY note TEXT": "changes items.note from LONGTEXT to TEXT",
    "ALTER TABLE items MODIFY note MEDIUMTEXT": "changes items.note from LONGTEXT to MEDIUMTEXT",
}  # fmt: skip

KEEP = (
    "/* My words: DROP TABLE items */ SELECT 1",
    "ALTER TABLE items MODIFY name LONGTEXT",
    "ALTER TABLE items MODIFY name TINYTEXT",
    "ALTER TABLE items MODIFY note LONGTEXT NOT NULL",
    "ALTER TABLE items MODIFY price INTEGER NOT NULL",
    "ALTER TABLE items CHANGE price cents BIGINT NULL",
    "ALTER TABLE items CHANGE COLUMN `price` `cents` INTEGER NOT NULL",
    "CREATE TABLE items (id INTEGER)",
    "INSERT INTO items VALUES ('DROP TABLE items; it''s text')",
    "-- DROP TABLE items\nSELECT 1",
    "ALTER TABLE items DROP CONSTRAINT one_per_name",
    "ALTER TABLE items ALTER COLUMN name DROP NOT NULL",
    "ALTER TABLE items ALTER COLUMN name DROP DEFAULT",
    "ALTER TABLE items ALTER COLUMN name TYPE VARCHAR(40)",
    "ALTER TABLE items ALTER COLUMN name TYPE TEXT",
    "ALTER TABLE items ALTER COLUMN price TYPE BIGINT, ALTER COLUMN name SET NOT NULL",
    "ALTER TABLE items ALTER COLUMN not_there_yet TYPE SMALLINT",
    "ALTER TABLE items MODIFY name VARCHAR(40) NOT NULL",
    "DROP INDEX ix_items_name",
    "DELETE FROM alembic_version WHERE version_num = 'one'",
    "DROP TABLE alembic_version",
    "DROP TABLE _alembic_tmp_items",
    "UPDATE items SET name = 'x'",
    "DROP TABLE fresh CASCADE",
    "ALTER TABLE fresh DROP COLUMN name",
)


def found(script: str) -> list[str]:
    return [
        what
        for one in statements(script)
        for what in dangers(one, Known(lambda *name: TYPES.get(name), lambda table: table == "fresh"))
    ]


@pytest.mark.parametrize("script", DESTROY)
def test_destroys(script: str) -> None:
    """Each way to lose data is named."""
    assert any(what.startswith(DESTROY[script]) for what in found(script))


@pytest.mark.parametrize("script", KEEP)
def test_keeps(script: str) -> None:
    """What keeps all data passes."""
    assert found(script) == []


@pytest.mark.parametrize(
    ("before", "after", "loss"),
    [
        ("VARCHAR(20)", "VARCHAR(20)", False),
        ("character varying(20)", "VARCHAR(21)", False),
        ("TEXT", "VARCHAR(100)", True),
        ("CHAR(3)", "VARCHAR(3)", False),
        ("INTEGER", "NUMERIC", False),
        ("INTEGER", "NUMERIC(4, 2)", True),
        ("NUMERIC(10, 2)", "NUMERIC(12, 2)", False),
        ("NUMERIC(10, 2)", "NUMERIC(10, 4)", True),
        ("NUMERIC", "NUMERIC(10, 4)", True),
        ("REAL", "DOUBLE PRECISION", False),
        ("DOUBLE PRECISION", "INTEGER", True),
        ("TIMESTAMP WITH TIME ZONE", "DATE", True),
        ("JSON", "JSONB", False),
        ("UUID", "TEXT", False),
    ],
)
def test_types(before: str, after: str, loss: bool) -> None:
    """A type that holds all of another one's values loses nothing; what is not known to fit does not."""
    assert loses(before, after) is loss
