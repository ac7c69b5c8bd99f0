"""`flask prod init`: three applications as people write them run with the kit; asking, refusing, trying."""

from __future__ import annotations

import os
import pty
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from flask.cli import ScriptInfo

from flask_prod.cli import prod
from tests.apps import StartGunicorn

LAYOUTS = Path(__file__).parent / "layouts"

BEHIND_TLS = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.7"}

Init = Callable[..., Result]


@pytest.fixture
def settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Give a factory that copies a layout and goes there; files of the settings count there as for a user."""

    def settle(layout: str) -> Path:
        folder = tmp_path / layout
        shutil.copytree(LAYOUTS / layout, folder, ignore=shutil.ignore_patterns("__pycache__"))
        monkeypatch.chdir(folder)
        for name in ("CONFIG_DIR", "ENV_FILE"):
            monkeypatch.setenv(name, "")
        monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # the same second, another text: no stale code
        return folder

    return settle


@pytest.fixture
def init() -> Init:
    """Give `flask --app APP prod init ...` of the current folder."""

    def run(*words: str, app: str | None = None, answer: str = "") -> Result:
        return CliRunner().invoke(prod, ["init", *words], obj=ScriptInfo(app), input=answer)

    return run


@pytest.mark.parametrize(
    ("layout", "app", "entry", "service", "words"),
    [
        ("single", None, "app:app", "single", b"Our guests"),
        ("factory", "notes", "notes:create_app()", "notes", b"No notes yet"),
        ("blueprints", None, "wsgi:app", "bakery", b"Fresh bread"),
    ],
)
def test_layout(
    layout: str,
    app: str | None,
    entry: str,
    service: str,
    words: bytes,
    settled: Callable[[str], Path],
    init: Init,
    gunicorn: StartGunicorn,
) -> None:
    """The application serves its page in production with the kit's headers and probes; again changes nothing."""
    folder = settled(layout)

    first = init("--yes", app=app)
    assert first.exit_code == 0, first.output
    assert f"  gunicorn {entry}    serves" in first.output.replace("'", "")
    assert "runs with its kit" in first.output

    again = init("--yes", app=app)
    assert again.exit_code == 0, again.output
    assert "Nothing to do" in again.output
    assert "+++" not in again.output

    server = gunicorn(
        entry,
        config=folder / "gunicorn.conf.py",
        cwd=folder,
        ready="/health/live",
        env={"TRUSTED_PROXIES": "1", "WEB_CONCURRENCY": "1"},
    )
    answer = server.get("/", headers=BEHIND_TLS)
    assert (answer.status, words in answer.body) == (200, True)
    assert answer.headers["X-RateLimit-Limit"] == "100"
    assert "max-age" in answer.headers["Strict-Transport-Security"]
    assert answer.headers["X-Request-ID"]
    assert server.get("/health/live").status == 200
    assert server.get("/").status == 308  # production: http goes to https
    assert f'"service":"{service}"' in server.stdout  # config/production.toml is read
    if layout == "blueprints":  # a hook of its own gunicorn.conf.py
        assert "The bakery is open" in server.stdout + server.stderr


def test_other_libraries(settled: Callable[[str], Path], init: Init) -> None:
    """What the kit does now is told with file and line, and stays as it is written."""
    folder = settled("blueprints")
    shown = init("--dry-run").output

    assert "bakery/extensions.py, line 9: `cache = Cache(...)` of Flask-Caching" in shown
    assert "bakery/extensions.py, line 10: `limiter = Limiter(...)` of Flask-Limiter" in shown
    assert "use `prod.limiter`" in shown
    assert "bakery/site/routes.py, line 13: /health is answered by the kit now" in shown
    init("--yes")
    assert "limiter = Limiter(get_remote_address" in (folder / "bakery" / "extensions.py").read_text()


@pytest.mark.parametrize("words", [("--dry-run",), ()])
def test_nothing_is_written(words: tuple[str, ...], settled: Callable[[str], Path], init: Init) -> None:
    """A dry run, and a no, leave every file as it was; both show what would change."""
    folder = settled("single")
    before = _contents(folder)

    result = init(*words, answer="n\n")

    assert result.exit_code == 0, result.output
    assert "+prod.init_app(app)" in result.output
    assert _contents(folder) == before


def test_yes_by_answer(settled: Callable[[str], Path], init: Init) -> None:
    """Who answers y has the files."""
    folder = settled("single")

    assert init(answer="y\n").exit_code == 0
    assert "prod.init_app(app)" in (folder / "app.py").read_text()


def test_no_answer(settled: Callable[[str], Path], init: Init) -> None:
    """Without a terminal and without --yes nothing is written."""
    folder = settled("single")

    assert init().exit_code == 1
    assert "prod" not in (folder / "app.py").read_text()


def test_with_env(settled: Callable[[str], Path], init: Init) -> None:
    """A generated key is in `.env` alone, readable by its owner alone, out of git, and never shown; once."""
    folder = settled("single")
    first = init("--yes", "--with-env")
    text = (folder / ".env").read_text()
    name, _, key = text.strip().partition("=")

    assert (name, len(key) >= 43) == ("SECRET_KEY", True)
    assert key not in first.output
    assert stat.S_IMODE((folder / ".env").stat().st_mode) == 0o600
    assert ".env" in (folder / ".gitignore").read_text().splitlines()
    assert "Nothing to do" in init("--yes", "--with-env").output
    assert (folder / ".env").read_text() == text


def test_no_secret_without_being_asked(settled: Callable[[str], Path], init: Init) -> None:
    """Without --with-env no file has a secret's value; the example names them in comments."""
    folder = settled("factory")
    init("--yes", app="notes")

    assert not (folder / ".env").exists()
    lines = (folder / ".env.example").read_text().splitlines()
    assert all(not line or line.startswith("#") for line in lines)


def test_application_that_breaks(settled: Callable[[str], Path], init: Init) -> None:
    """An application that does not run afterwards is told with the reason and the place, and exit code 1."""
    folder = settled("single")
    with (folder / "app.py").open("a") as file:
        file.write('\nraise RuntimeError("no stamps")\n')

    result = init("--yes")

    assert result.exit_code == 1
    assert "does not run" in result.output
    assert "RuntimeError: no stamps" in result.output
    assert "app.py, line 4" in result.output


def test_application_that_ends_the_process(settled: Callable[[str], Path], init: Init) -> None:
    """An application that ends its process while it is loaded is told with the exit code."""
    folder = settled("single")
    with (folder / "app.py").open("a") as file:
        file.write("\nos._exit(3)\n")

    assert "its process ended with exit code 3" in init("--yes").output


def test_wrong_setting(settled: Callable[[str], Path], init: Init, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that the kit refuses is the reason that is told."""
    settled("single")
    monkeypatch.setenv("RATE_LIMIT_WINDOW", "soon")

    assert "RATE_LIMIT_WINDOW must be" in init("--yes").output


def test_several(settled: Callable[[str], Path], init: Init) -> None:
    """Several applications that nobody chose between are listed, and --app says which."""
    folder = settled("single")
    (folder / "app.py").write_text("from flask import Flask\nsite = Flask('a')\nadmin = Flask('b')\n")

    result = init("--yes")
    assert result.exit_code == 1
    assert "1. app.py, line 2: site" in result.output
    assert "2. app.py, line 3: admin" in result.output
    assert "--app app:site" in result.output

    result = init("--yes", app="app:admin")
    assert result.exit_code == 0, result.output
    assert (folder / "app.py").read_text().endswith("admin = Flask('b')\nprod.init_app(admin)\n")


@pytest.mark.parametrize(
    ("files", "app", "words"),
    [
        ({}, None, "No `app = Flask(...)` was found"),
        ({}, "shop", "There is no module 'shop'"),
        ({"app.py": "def broken(:\n"}, None, "app.py, line 1: this is not Python"),
        ({"app.py": "x = 1\n"}, None, "No `app = Flask(...)` was found"),
    ],
)
def test_refusals(
    files: dict[str, str],
    app: str | None,
    words: str,
    tmp_path: Path,
    init: Init,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where there is no application to be found it is said so in one sentence with exit code 1."""
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)

    result = init("--yes", app=app)

    assert result.exit_code == 1
    assert words in result.output


def test_dirty_tree(settled: Callable[[str], Path], init: Init) -> None:
    """Changes that git knows of and that are not committed are told, and stop nothing."""
    folder = settled("single")
    for words in (["init", "-q"], ["add", "app.py"]):
        subprocess.run(["git", *words], cwd=folder, check=True)

    result = init("--yes")

    assert "not committed" in result.output
    assert result.exit_code == 0


def test_on_a_terminal(settled: Callable[[str], Path]) -> None:
    """On a terminal several applications are asked about, and the diff has colours."""
    folder = settled("single")
    (folder / "app.py").write_text("from flask import Flask\nsite = Flask('a')\nadmin = Flask('b')\n")
    terminal, inner = pty.openpty()
    with open(terminal, "r+b", buffering=0) as screen:
        os.write(terminal, b"2\nn\n")
        subprocess.run(
            [sys.executable, "-m", "flask", "prod", "init"],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            timeout=30,
            check=True,
        )
        os.close(inner)
        shown = b""
        with suppress(OSError):  # the end, on Linux
            while part := screen.read(10_000):
                shown += part

    assert b"Which one" in shown
    assert b"\x1b[32m+prod.init_app(admin)" in shown
    assert b"Nothing was written." in shown


def test_factory_with_arguments(
    settled: Callable[[str], Path], init: Init, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arguments that the factory needs stay in the commands, quoted for make and shell; `src` is found."""
    folder = settled("single")
    (folder / "app.py").unlink()
    (folder / "src" / "shop").mkdir(parents=True)
    (folder / "src" / "shop" / "__init__.py").write_text(
        "from flask import Flask\ndef create_app(kind):\n    app = Flask(kind)\n    return app\n"
    )
    monkeypatch.setenv("PYTHONPATH", "src")

    result = init("--yes", app='shop:create_app("a$b")')

    assert result.exit_code == 0, result.output
    assert """gunicorn --pythonpath src 'shop:create_app("a$b")'""" in result.output
    assert """\tflask --app 'shop:create_app("a$$b")' prod up\n""" in (folder / "Makefile").read_text()


def test_package_that_only_leads_there(settled: Callable[[str], Path], init: Init) -> None:
    """A package that imports the module of the factory is not what `--app` must say from now on."""
    folder = settled("factory")
    (folder / "notes" / "__init__.py").rename(folder / "notes" / "factory.py")
    (folder / "notes" / "__init__.py").write_text("from . import factory\n")

    result = init("--yes", app="notes")

    assert result.exit_code == 0, result.output
    assert "flask --app notes.factory prod up" in (folder / "Makefile").read_text()


def test_found_without_a_name(settled: Callable[[str], Path], init: Init) -> None:
    """Where Flask itself finds nothing, a single application is found, and the files say its name."""
    folder = settled("factory")

    assert init("--yes").exit_code == 0
    assert "flask --app notes prod up" in (folder / "Makefile").read_text()


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
