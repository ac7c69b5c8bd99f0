"""The recipe of docs/migrations.md for tenants: each place is migrated by itself, by the same scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import inspect, text

from flask_prod import ProdKit
from tests.apps import MakeApp

from .conftest import Scripts
from .test_engine import OUR_CONNECTION

PAGE = Path(__file__).parents[3] / "docs" / "migrations.md"


def recipe() -> dict[str, Any]:
    """Return what the page's recipe defines."""
    (block,) = (part for part in PAGE.read_text().split("```python\n")[1:] if "def upgrade_tenants" in part)
    names: dict[str, Any] = {"Config": Config, "command": command}
    exec(block.partition("```")[0], names)  # a page of ours
    return names


@pytest.mark.parametrize("kind", ["schema", "database"])
def test_tenants_are_upgraded(
    make_app: MakeApp, scripts: Scripts, postgres_url: str, tmp_path: Path, kind: str
) -> None:
    """Every tenant has the tables and a revision of its own; the shared place has none of it."""
    (scripts.folder / "env.py").write_text(OUR_CONNECTION)
    prod = ProdKit(only=("database", "migrations"))
    places = {"DATABASE_TENANT_URL": f"sqlite:///{tmp_path}/{{tenant}}.db"} if kind == "database" else {}
    app = make_app(kit=prod, DATABASE_URL=postgres_url, DATABASE_TENANTS=kind, **places)
    found = {}

    with app.app_context():
        if kind == "schema":
            with prod.db.engine.begin() as connection:
                connection.execute(text("CREATE SCHEMA tenant_acme; CREATE SCHEMA tenant_globex"))
        for _ in range(2):
            recipe()["upgrade_tenants"](prod, ["acme", "globex"], str(scripts.folder))
        for name in ("acme", "globex"):
            with prod.db.tenant(name).engine.begin() as connection:
                connection.execute(text("INSERT INTO items (id, name) VALUES (1, :name)"), {"name": name})
                found[name] = connection.execute(
                    text("SELECT name, version_num FROM items, alembic_version")
                ).all()
        shared = inspect(prod.db.engine).get_table_names(schema="public")

    assert found == {name: [(name, "one")] for name in ("acme", "globex")}
    assert shared == []
