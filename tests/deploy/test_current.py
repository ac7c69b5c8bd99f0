"""deploy/ of this repository is what the command writes for the sample shop."""

from __future__ import annotations

import os
from pathlib import Path

from flask_prod.deploy.targets import RUNBOOKS

from .conftest import ROOT


def test_current(rendered: Path) -> None:
    """Each file is there and says what the templates say today; `make deploy` writes them anew."""
    wanted = contents(rendered)
    found = contents(ROOT / "deploy")

    assert sorted(found) == sorted(wanted)
    assert [name for name in wanted if found[name] != wanted[name]] == []


def test_beside(shop: Path) -> None:
    """So do those that lie elsewhere in the project: one at its root, and the runbooks, all of them."""
    beside = {".dockerignore": (shop / ".dockerignore").read_bytes(), **of(shop)}

    assert {".dockerignore": (ROOT / ".dockerignore").read_bytes(), **of(ROOT)} == beside
    assert [path.name for path in shop.iterdir() if path.is_file() and not path.is_symlink()] == [".dockerignore"]


def of(project: Path) -> dict[str, bytes]:
    """Return the runbooks of a project."""
    return {path.name: path.read_bytes() for path in (project / RUNBOOKS).iterdir()}


def contents(folder: Path) -> dict[str, tuple[bytes, bool]]:
    """Return what lies below *folder*: content, and whether it can be executed."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), os.access(path, os.X_OK)) for path in paths}
