"""The files that `flask prod deploy init` writes for the sample shop, rendered once for all tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def render(*targets: str, to: Path, app: str = "sample_app", cwd: Path = ROOT) -> str:
    """Run the command as a user would, in an environment that says nothing else, and return what it printed."""
    environ = {"PATH": os.environ["PATH"], "HOME": str(to), "ENVIRONMENT": "development", "DATA_DIR": str(to)}
    command = [sys.executable, "-m", "flask", "--app", app, "prod", "deploy", "init", *targets, "--yes"]
    done = subprocess.run(
        [*command, "--to", str(to)], cwd=cwd, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project like this one, with the files of all targets: those that lie beside deploy/ too."""
    project = tmp_path_factory.mktemp("shop")
    for name in ("sample_app", "pyproject.toml", "gunicorn.conf.py"):
        (project / name).symlink_to(ROOT / name)
    render("all", to=project / "deploy", cwd=project)
    return project


@pytest.fixture(scope="session")
def rendered(shop: Path) -> Path:
    """Return the folder with the files of all targets for the sample shop: as deploy/ of this repository."""
    return shop / "deploy"
