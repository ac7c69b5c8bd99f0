"""The files around an application: made where missing, added to where there, never overwritten."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest

from flask_prod.cli.initial.change import Change, changes_of, diff, write
from flask_prod.cli.initial.files import plan_files
from flask_prod.cli.initial.text import ByHand, Text


def plan(folder: Path) -> tuple[dict[str, str], list[str]]:
    """Write what is planned; return the files that changed, and what was said of others."""
    around = plan_files(folder, service="shop", entry="shop:create_app()", flask="flask --app shop")
    changes = changes_of(around.texts)
    write(changes)
    return {str(c.path.relative_to(folder)): c.after.decode() for c in changes}, around.skipped


def test_empty_folder(tmp_path: Path) -> None:
    """All but requirements is made, and made once."""
    made, skipped = plan(tmp_path)

    assert set(made) == {"gunicorn.conf.py", "config/production.toml", ".env.example", "Makefile"}
    assert tomllib.loads(made["config/production.toml"]) == {"SERVICE_NAME": "shop"}
    assert "\n\tflask --app shop prod check\n" in made["Makefile"]
    assert skipped == []
    assert plan(tmp_path) == ({}, [])


def test_gunicorn_of_ones_own(tmp_path: Path) -> None:
    """A gunicorn.conf.py keeps what it has, and is composed with the kit's at its end."""
    own = "workers = 7\n\n\ndef when_ready(server):\n    pass"
    (tmp_path / "gunicorn.conf.py").write_text(own)
    made = plan(tmp_path)[0]["gunicorn.conf.py"]

    assert made.startswith(own + "\n")
    assert made.endswith("globals().update(compose(globals()))\n")
    assert "gunicorn.conf.py" not in plan(tmp_path)[0]


def test_makefile_of_ones_own(tmp_path: Path) -> None:
    """Only targets that are missing come, and make reads all of them; variables are no targets."""
    own = "check := no\nAPP ?= shop\n.PHONY: worker\nrun all: prepare ; @echo own run\nprepare::\n\t@true\n"
    own += "worker:\n\t@echo own"
    (tmp_path / "Makefile").write_text(own)
    made = plan(tmp_path)[0]["Makefile"]

    assert made.startswith(own + "\n\n.PHONY: prod check\n")
    assert "\nrun:" not in made
    for target, words in {"run": "own run", "worker": "own", "check": "flask --app shop prod check"}.items():
        shown = subprocess.run(
            [str(shutil.which("make")), "-n", target], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert words in shown.stdout


def test_other_makefile(tmp_path: Path) -> None:
    """A GNUmakefile is the one that make reads; one with recipes of another form is left alone."""
    (tmp_path / "GNUmakefile").write_text(".RECIPEPREFIX = >\nrun:\n> true\n")
    made, skipped = plan(tmp_path)

    assert "Makefile" not in made
    assert "GNUmakefile has a .RECIPEPREFIX" in skipped[0]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("flask", "flask\nflask-prod>=0.1.0\n"),
        ("flask\r\nredis\r\n", "flask\r\nredis\r\nflask-prod>=0.1.0\r\n"),
        ("Flask_Prod[embedded]==0.1\n", None),
        ("flask-prod-theme\n", "flask-prod-theme\nflask-prod>=0.1.0\n"),
    ],
)
def test_requirements(before: str, after: str | None, tmp_path: Path) -> None:
    """A line comes at the end of requirements.txt, unless it names the kit already."""
    path = tmp_path / "requirements.txt"
    path.write_bytes(before.encode())
    plan(tmp_path)

    assert path.read_bytes().decode() == (before if after is None else after)


def test_requirements_that_are_made(tmp_path: Path) -> None:
    """Requirements with hashes, or made from requirements.in, are not written into."""
    (tmp_path / "requirements.txt").write_text("flask==3.1.3 --hash=sha256:00\n")
    assert "has hashes" in plan(tmp_path)[1][0]

    (tmp_path / "requirements.in").write_text("flask\n")
    made, skipped = plan(tmp_path)
    assert "flask-prod" in made["requirements.in"]
    assert "pip-compile" in skipped[0]


@pytest.mark.parametrize(
    "listed",
    [
        '[\n    "flask"\n]',
        '[\n  "flask",  # web\n  "redis[hiredis]",\n]',
        '["flask", "redis[hiredis]"]  # few',
        "[]",
        '["flask",]',
        "[\n]",
    ],
)
def test_pyproject(listed: str, tmp_path: Path) -> None:
    """The requirement joins the list in its own form; everything else reads as before."""
    text = f'[tool.x]\ndependencies = 1\n[project]\nname = "shop"\ndependencies = {listed}\n[tool.y]\nz = [1]\n'
    path = tmp_path / "pyproject.toml"
    path.write_text(text)
    plan(tmp_path)
    before, after = tomllib.loads(text), tomllib.loads(path.read_text())

    assert after["project"]["dependencies"] == [*before["project"]["dependencies"], "flask-prod>=0.1.0"]
    after["project"]["dependencies"].pop()
    assert after == before
    again = path.read_text()
    plan(tmp_path)
    assert path.read_text() == again


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[tool.poetry.dependencies]\nflask = "*"\n', "poetry add flask-prod"),
        ("[project\n", "cannot be read"),
        ('[project]\nname = "x"\ndependencies = ["a",\n "b"]\n', "add 'flask-prod>=0.1.0' to the dependencies"),
    ],
)
def test_pyproject_by_hand(text: str, words: str, tmp_path: Path) -> None:
    """A list in a form that cannot be added to safely is left, with what to do."""
    (tmp_path / "pyproject.toml").write_text(text)
    skipped = plan(tmp_path)[1]

    assert words in skipped[0]
    assert (tmp_path / "pyproject.toml").read_text() == text


@pytest.mark.parametrize("name", ["Pipfile", "setup.cfg", "setup.py"])
def test_other_lists(name: str, tmp_path: Path) -> None:
    """Where a project lists its needs elsewhere, that is told once."""
    (tmp_path / name).write_text("flask\n")
    assert plan(tmp_path)[1] == [f"{name}: add flask-prod>=0.1.0 to what the project needs."]

    (tmp_path / name).write_text("flask\nflask-prod\n")
    assert plan(tmp_path)[1] == []


def test_settings_that_are_there(tmp_path: Path) -> None:
    """A settings file stays; one without a name for the service is told of it."""
    (tmp_path / "config").mkdir()
    path = tmp_path / "config" / "production.toml"
    path.write_text("PORT = 9000\n")

    assert 'SERVICE_NAME = "shop"' in plan(tmp_path)[1][0]
    assert path.read_text() == "PORT = 9000\n"


def test_write_keeps_mode_and_link(tmp_path: Path) -> None:
    """A file keeps its permissions, and a link goes on to lead to its file."""
    target = tmp_path / "real.py"
    target.write_text("a\n")
    target.chmod(0o750)
    link = tmp_path / "app.py"
    link.symlink_to(target)
    text = Text(link)
    text.add_after(1, "b")

    write(changes_of([text]))

    assert (target.read_text(), link.is_symlink()) == ("a\nb\n", True)
    assert stat.S_IMODE(target.stat().st_mode) == 0o750


def test_write_all_or_nothing(tmp_path: Path) -> None:
    """When one file cannot be written, or has changed since it was read, none is, and nothing is left behind."""
    first, second = tmp_path / "a.py", tmp_path / "b.py"
    for path in (first, second):
        path.write_text("old\n")
    (tmp_path / "file").write_text("")
    fine = Change(first, b"old\n", b"new\n")

    with pytest.raises(ByHand, match=r"b\.py has changed meanwhile"):
        write([fine, Change(second, b"older\n", b"new\n")])
    with pytest.raises(OSError, match="file"):
        write([fine, Change(tmp_path / "file" / "c.py", None, b"new\n")])

    assert first.read_text() == "old\n"
    assert sorted(os.listdir(tmp_path)) == ["a.py", "b.py", "file"]


def test_diff(tmp_path: Path) -> None:
    """A diff has the names from the project's folder, and never what a file of secrets holds."""
    shown = list(diff(Change(tmp_path / "a.py", b"x\r\n", b"x\r\ny\r\n"), tmp_path))
    assert [line.split("m", 1)[-1].removesuffix("\x1b[0m") for line in shown[:2]] == ["--- a/a.py", "+++ b/a.py"]
    assert "+y" in shown[-1]
    assert "\r" not in "".join(shown)

    hidden = "\n".join(diff(Change(tmp_path / ".env", None, b"SECRET_KEY=abc\n", hidden=True), tmp_path))
    assert "abc" not in hidden
