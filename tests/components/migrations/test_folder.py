"""Folders and revisions, found without Alembic."""

from __future__ import annotations

from pathlib import Path

import pytest

from flask_prod.components.migrations.folder import find_folder, revisions_of

from .conftest import Scripts


def test_beside_the_application(scripts: Scripts, tmp_path: Path) -> None:
    """`migrations` beside the application, or one step up, is found; a folder of another kind is not."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "other" / "migrations").mkdir(parents=True)

    for root in (tmp_path, tmp_path / "shop"):
        folder = find_folder("", root)
        assert folder is not None
        assert folder.path == scripts.folder
    assert find_folder("", tmp_path / "other" / "migrations") is None


def test_named(scripts: Scripts, tmp_path: Path) -> None:
    """MIGRATIONS_DIR is relative to the application or to the working directory."""
    scripts.folder.rename(tmp_path / "changes")

    assert find_folder("changes", tmp_path) is not None
    assert find_folder("migrations", tmp_path) is None


def test_heads(scripts: Scripts) -> None:
    """Heads are what nothing follows or depends on, whatever way the names are written."""
    scripts.add("two", "pass")
    scripts.add("other", "pass", down_revision=None, depends_on=["two"])
    (scripts.versions / "three.py").write_text(
        'revision: str = "three"\ndown_revision: tuple[str, ...] = ("one",)\n'
    )
    (scripts.versions / "helper.py").write_text("value = 3\n")

    found = revisions_of(scripts.versions)
    assert found.heads == {"other", "three"}
    assert found.all == {"one", "two", "other", "three"}


def test_unreadable_script(scripts: Scripts) -> None:
    """A script that is no Python is named."""
    (scripts.versions / "broken.py").write_text("revision = (")

    with pytest.raises(ValueError, match=r"broken\.py"):
        revisions_of(scripts.versions)
