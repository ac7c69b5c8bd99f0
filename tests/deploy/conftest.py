"""The files that `flask prod deploy init` writes for the sample shop, rendered once for all tests."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy import containers

ROOT = Path(__file__).resolve().parents[2]
CANARY = "canary-of-a-developers-disk"
OF_A_DEVELOPER = (
    ".git/config", ".venv/bin/python", ".env", "var/shop/shop.db", "instance/jwt.key", "server.pem",
    "sample_app/.env", "sample_app/config/.env.local", "sample_app/shop.sqlite3", "sample_app/instance/session",
)  # fmt: skip
"""Files that lie beside the sources and must be in no image."""


def render(*targets: str, to: Path, app: str = "sample_app", cwd: Path = ROOT) -> str:
    """Run the command as a user would, in an environment that says nothing else, and return what it printed."""
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(to),
        "ENVIRONMENT": "development",
        "DATA_DIR": str(to.parent / "data"),
    }
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
    for name in ("sample_app", "pyproject.toml", "gunicorn.conf.py", "Makefile"):
        (project / name).symlink_to(ROOT / name)
    render("all", to=project / "deploy", cwd=project)
    return project


@pytest.fixture(scope="session")
def rendered(shop: Path) -> Path:
    """Return the folder with the files of all targets for the sample shop: as deploy/ of this repository."""
    return shop / "deploy"


@pytest.fixture(scope="session")
def rig() -> Iterator[containers.Rig]:
    """Yield a container engine, installed and given a base image if need be; skip with the reason without one."""
    try:
        engine = containers.prepared()
    except containers.Missing as error:
        pytest.skip(f"no containers here: {error}")
    yield engine
    with engine.alone():
        engine.remove_abandoned(os.getpid())


@pytest.fixture(scope="session")
def context(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which the shop's image is built: the project, and what a developer's disk holds too."""
    folder = tmp_path_factory.mktemp("context")
    for name in ("flask_prod", "sample_app", "deploy", "tests", "docs"):
        source = shop / name if name == "deploy" else ROOT / name
        shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE", "gunicorn.conf.py", "Makefile"):
        shutil.copy(ROOT / name, folder)
    shutil.copy(shop / ".dockerignore", folder)
    for name in OF_A_DEVELOPER:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(CANARY)
    return folder


@pytest.fixture(scope="session")
def image(rig: containers.Rig, context: Path) -> str:
    """Return the tag of the shop's image, built of the rendered Dockerfile; the same for all tests of a run."""
    args = {"VERSION": "1.2.3", "REVISION": "0123abc", "SOURCE": "https://git.example.com/shop"}
    tag = f"localhost/flask-prod-tests/shop:{fingerprint(context)}"
    with rig.alone():
        if not rig.has(tag):  # what was built of the very same files is the same image
            rig.build(context / "deploy/docker/Dockerfile", context, tag, args)
    return tag


def fingerprint(folder: Path) -> str:
    """Return a name for all that is in a folder, what only tests know of left out."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder)
        if name.parts[0] not in ("tests", "docs"):
            digest.update(f"{name}\0{path.stat().st_mode}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
