"""The group: cheap to load, complete with an application, and clean when there is none."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from flask.cli import ScriptInfo

from flask_prod.cli import prod
from tests.apps import MakeApp

from .shop import Shop

BROKEN = {
    "config": ("from flask_prod import ProdKit\nfrom flask import Flask\napp = Flask('x')\n"
               "app.config['HEALTH_TIMEOUT'] = 'soon'\nProdKit(app, only=('health',))\n",
               "HEALTH_TIMEOUT must be"),
    "bug": ("value = 1\nraise ValueError('no such thing')\n", "ValueError: no such thing"),
    "import": ("import no_such_library\n", "No module named 'no_such_library'"),
    "syntax": ("def broken(:\n", "SyntaxError"),
    "no kit": ("from flask import Flask\napp = Flask('x')\n", "has no kit"),
    "no app": ("value = 1\n", "Failed to find Flask application"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_broken_application(shop: Shop, what: str) -> None:
    """An application that cannot be loaded is told in clean words with exit code 1, and where it went wrong."""
    source, words = BROKEN[what]
    (shop.folder / "shop.py").write_text(source)
    result = shop.flask("health")

    assert result.returncode == 1
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    if what in ("bug", "import"):
        assert f"shop.py, line {source.count(chr(10))}" in result.stderr


def test_missing_module(shop: Shop) -> None:
    """A name that is no module is told."""
    shop.env["FLASK_APP"] = "nothing_here"
    result = shop.flask("config")

    assert (result.returncode, result.stdout) == (1, "")
    assert "Could not import 'nothing_here'" in result.stderr


def test_help_without_application(shop: Shop) -> None:
    """The help lists what works without an application, and says what is wrong with it."""
    (shop.folder / "shop.py").write_text("raise ValueError('broken')")
    result = shop.flask("--help")

    assert result.returncode == 0
    assert "  up " in result.stdout
    assert "  jobs " in result.stdout
    assert "ValueError: broken" in result.stderr


@pytest.mark.parametrize("words", [("worker", "--help"), ("db", "upgrade", "--help")])
def test_help_of_rooms_without_application(words: tuple[str, ...], shop: Shop) -> None:
    """The help of the rooms' commands needs no application that can start; the commands do."""
    (shop.folder / "shop.py").write_text("raise ValueError('no key')")

    result = shop.flask(*words)
    assert (result.returncode, result.stderr) == (0, "")
    assert f"Usage: python -m flask prod {' '.join(words[:-1])}" in result.stdout

    result = shop.flask(*words[:-1])
    assert result.returncode == 1
    assert "ValueError: no key" in result.stderr


def test_help_of_no_command(shop: Shop) -> None:
    """Where nobody knows a command, the reason why the application does not start is told."""
    (shop.folder / "shop.py").write_text("raise ValueError('no key')")

    assert "ValueError: no key" in shop.flask("nothing", "--help").stderr


def test_debug_shows_the_traceback(shop: Shop) -> None:
    """With FLASK_DEBUG the traceback is there for whoever looks for it."""
    (shop.folder / "shop.py").write_text("raise ValueError('broken')")
    shop.env["FLASK_DEBUG"] = "1"

    assert "Traceback" in shop.flask("health").stderr


def test_contributed_command(shop: Shop) -> None:
    """A command that a room contributes is listed and runs in the application's context."""
    source = (shop.folder / "shop.py").read_text()
    source = source.replace('print("working"', 'from flask import current_app; print(current_app.name, "greets"')
    (shop.folder / "shop.py").write_text(source.replace("while True", "while False"))

    assert "  worker " in shop.flask("--help").stdout
    assert "shop greets" in shop.flask("worker").stdout


def test_console_script(shop: Shop) -> None:
    """`flask-prod` is `flask prod`, with Flask's options in front."""
    del shop.env["FLASK_APP"]
    command = [sys.executable, "-c", "from flask_prod.cli import main; main()", "--app", "shop", "health"]
    result = subprocess.run(
        command, cwd=shop.folder, env=shop.env, capture_output=True, text=True, timeout=20, check=False
    )

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("healthy")


@pytest.mark.parametrize("command", ["up", "health", "config", "init", "settings", "worker"])
def test_help(make_app: MakeApp, command: str) -> None:
    """Every command has a help with examples."""
    app = make_app(only=("health",))
    result = CliRunner().invoke(prod, [command, "--help"], obj=ScriptInfo(create_app=lambda: app))

    assert result.exit_code == 0
    assert "Examples:" in result.output
    assert f"flask prod {command}" in result.output


def test_loading_is_lazy() -> None:
    """Every `flask` command imports the group: it costs no library and none of our commands."""
    code = "import sys, flask_prod.cli; print([n for n in sys.modules if n.startswith('flask_prod.c')])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ours = [name for name in shown.stdout.split("'") if name.startswith("flask_prod.c")]

    assert [name for name in ours if ".components" in name] == []
    assert [name for name in ours if name.startswith("flask_prod.cli.")] == ["flask_prod.cli.group"]


def test_first_start_is_hidden(make_app: MakeApp) -> None:
    """The inner step of `up` is no command for people."""
    app = make_app(only=("health",))
    command = prod.get_command(click.Context(prod, obj=ScriptInfo(create_app=lambda: app)), "first-start")

    assert command is not None
    assert command.hidden


def test_rooms_share_a_group(make_app: MakeApp) -> None:
    """Commands that several rooms contribute to one group stand side by side in it."""
    app = make_app(only=("migrations", "backups"))

    result = CliRunner().invoke(prod, ["db", "--help"], obj=ScriptInfo(create_app=lambda: app))

    assert result.exit_code == 0, result.output
    assert {"upgrade", "backup"} <= {line.split()[0] for line in result.output.splitlines() if line.strip()}
