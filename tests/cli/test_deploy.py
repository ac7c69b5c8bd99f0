"""`flask prod deploy init`: what is written, what is asked, and whose settings count."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from flask.cli import ScriptInfo

from flask_prod.cli import prod
from flask_prod.core.kit import state_of

APP = """
from flask import Flask
from flask_prod import ProdKit

def create_app():
    app = Flask("bakery")
    ProdKit(app, without=["jobs"])
    return app
"""
DOCKERFILE = Path("deploy/docker/Dockerfile")

Deploy = Callable[..., Result]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a small project with its own profile of production, and go there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("CONFIG_DIR", "ENV_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ENVIRONMENT", "test")
    monkeypatch.delitem(sys.modules, "bakery", raising=False)
    (tmp_path / "bakery.py").write_text(APP)
    (tmp_path / "requirements.txt").write_text("flask-prod\n")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "production.toml").write_text('PORT = 8443\nSERVICE_NAME = "Bread & Co"\n')
    return tmp_path


@pytest.fixture
def init(project: Path) -> Deploy:
    """Give `flask --app bakery prod deploy init ...` in that project."""

    def run(*words: str, answer: str = "") -> Result:
        info = ScriptInfo("bakery")
        done = CliRunner().invoke(prod, ["deploy", "init", *words], obj=info, input=answer)
        if info._loaded_app is not None:
            state_of(info._loaded_app).lifecycle.close()
        return done

    return run


def test_first(project: Path, init: Deploy) -> None:
    """New files are written without a question; the second time there is nothing to do."""
    first, second = init("docker"), init("docker")

    assert (first.exit_code, second.exit_code) == (0, 0), first.output
    assert "new      deploy/docker/Dockerfile" in first.output
    assert (project / DOCKERFILE).read_text().startswith("#")
    assert second.output == "0 files written.\n"


def test_diff(project: Path, init: Deploy) -> None:
    """--diff shows and writes nothing."""
    done = init("docker", "--diff")

    assert done.exit_code == 0
    assert "+++ b/deploy/docker/Dockerfile" in done.output
    assert "nothing was written" in done.output
    assert not (project / "deploy").exists()


def test_check(project: Path, init: Deploy) -> None:
    """--check tells what is missing or changed by its exit code, and writes nothing."""
    missing = init("docker", "--check")
    init("docker")
    current = init("docker", "--check")
    (project / DOCKERFILE).write_text("FROM scratch\n")
    changed = init("docker", "--check")

    assert (missing.exit_code, current.exit_code, changed.exit_code) == (1, 0, 1)
    assert "deploy/docker/Dockerfile is missing" in missing.output
    assert "deploy/docker/Dockerfile is not current" in changed.output
    assert (project / DOCKERFILE).read_text() == "FROM scratch\n"


def test_nobody(project: Path, init: Deploy) -> None:
    """What people have changed is kept where there is nobody to ask, and overwritten with --yes."""
    init("docker")
    ours = (project / DOCKERFILE).read_text()
    (project / DOCKERFILE).write_text("FROM scratch\n")
    kept = init("docker")
    told = (project / DOCKERFILE).read_text()
    done = init("docker", "--yes")

    assert "-FROM scratch" in kept.output
    assert "1 kept as they were" in kept.output
    assert told == "FROM scratch\n"
    assert "changed  deploy/docker/Dockerfile" in done.output
    assert (project / DOCKERFILE).read_text() == ours


@pytest.mark.parametrize(("answer", "overwritten"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_asks(project: Path, init: Deploy, answer: str, overwritten: bool) -> None:
    """On a terminal it asks file by file, after showing the difference; no is what Enter means."""
    init("docker")
    (project / DOCKERFILE).write_text("FROM scratch\n")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "flask", "--app", "bakery", "prod", "deploy", "init", "docker"]
    process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    os.write(ours, answer.encode())
    told, _ = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)

    assert process.returncode == 0, told
    assert "Overwrite deploy/docker/Dockerfile?" in told
    assert ((project / DOCKERFILE).read_text() != "FROM scratch\n") is overwritten


def test_settings(project: Path, init: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of production count; those of this machine, whatever they are, do not."""
    monkeypatch.setenv("PORT", "9999")
    (project / ".env").write_text("PORT=9998\n")
    init("docker")

    text = (project / DOCKERFILE).read_text()
    assert "8443" in text
    assert "999" not in text
    assert "bread-co" in text


def test_wrong(project: Path, init: Deploy) -> None:
    """A setting that is wrong is named; the files are made with its default."""
    (project / "config" / "production.toml").write_text('DEPLOY_NAMESPACE = "Bread & Co"\n')
    done = init("docker")

    assert done.exit_code == 0
    assert "DEPLOY_NAMESPACE must be" in done.output


def test_unknown(init: Deploy) -> None:
    """A target that is none is refused with the list of those there are."""
    done = init("dokcer")

    assert done.exit_code == 2
    assert "'docker'" in done.output


def test_place(project: Path, init: Deploy) -> None:
    """--to names another folder; what must lie at the root lies there all the same."""
    done = init("docker", "--to", "ops")

    assert done.exit_code == 0
    assert (project / "ops" / "docker" / "Dockerfile").is_file()
    assert (project / ".dockerignore").is_file()


def test_everything(project: Path, init: Deploy) -> None:
    """All targets at once: scripts can be executed, and an application without jobs has no worker anywhere."""
    done = init("all")

    assert done.exit_code == 0, done.output
    files = [path for path in project.rglob("*") if path.is_file() and path.name != "bakery.py"]
    scripts = [path for path in files if path.read_bytes().startswith(b"#!")]
    assert scripts != []
    assert [path for path in scripts if not os.access(path, os.X_OK)] == []
    assert [path for path in files if b"flask prod worker" in path.read_bytes()] == []


def test_help(init: Deploy) -> None:
    """The help lists every target with its sentence."""
    told = init("--help").output

    assert "  kubernetes  kustomize base" in told
    assert "{targets}" not in told
