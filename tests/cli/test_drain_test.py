"""`flask prod drain-test` with real gunicorn: what it finds, and what it says when nothing can be found."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

from tests.servers import alive, wait_for

from .shop import Shop, descendants

LEAVES_A_FILE = """
import tempfile
if "gunicorn" in os.environ.get("SERVER_SOFTWARE", ""):
    tempfile.mkstemp(prefix="left-by-the-shop-")
"""


def test_good_application(shop: Shop) -> None:
    """An application that drains loses nothing at SIGTERM and SIGHUP, and leaves nothing; the exit code is 0."""
    shop.env["DRAIN_SECONDS"] = "2"
    result = shop.flask("drain-test", "--rounds", "1", "--seconds", "0.5", "--lag", "0.5", "--json", seconds=60)

    found = json.loads(result.stdout)
    assert result.returncode == 0, result.stdout
    assert (found["lost"], found["advice"], found["findings"]) == (0, [], [])
    assert found["requests"] > 200
    assert [(scene["signal"], scene["ended"], scene["left"]) for scene in found["scenes"]] == [
        ("TERM", "well", []), ("HUP", "well", []),
    ]  # fmt: skip
    assert 2 < found["scenes"][0]["seconds"] < 6
    assert not (shop.folder / "prepared").exists()


def test_application_that_does_not_drain(shop: Shop) -> None:
    """Lost requests and what is left behind are told one by one, with what to change; the exit code is 1."""
    source = shop.folder / "shop.py"
    source.write_text(source.read_text() + LEAVES_A_FILE)
    options = ("--rounds", "1", "--seconds", "0.5", "--workers", "1", "--path", "/")
    result = shop.flask("drain-test", *options, seconds=60)

    assert result.returncode == 1
    assert "follows /health/ready after 1 s, DRAIN_SECONDS is 0 s." in result.stdout
    assert "on a new connection: Connection" in result.stdout
    assert "left temporary file left-by-the-shop-" in result.stdout
    assert "- DRAIN_SECONDS is 0 s, but the balancer acts after 1 s: set it to 2 s or more." in result.stdout
    assert "requests lost." in result.stdout.splitlines()[-1]


def test_path_that_fails(shop: Shop) -> None:
    """A path that answers 500 without any signal is refused: it would count as lost."""
    source = shop.folder / "shop.py"
    source.write_text(source.read_text().replace('return "hello"', "1 / 0"))
    result = shop.flask("drain-test", "--workers", "1")

    assert result.returncode == 1
    assert "/ answers 500 before any signal was sent" in result.stderr
    assert "ZeroDivisionError" in result.stderr
    assert "Traceback" not in result.stderr.partition("last lines")[0]


def test_server_that_does_not_start(shop: Shop) -> None:
    """A server that ends at its start is told with its own words."""
    (shop.folder / "gunicorn.conf.py").write_text("raise RuntimeError('no such luck')")
    result = shop.flask("drain-test")

    assert result.returncode == 1
    assert "The application ended at its start" in result.stderr
    assert "no such luck" in result.stderr


def test_application_that_cannot_be_loaded(shop: Shop) -> None:
    """An application with a wrong setting says so before any server is started."""
    shop.env["HEALTH_TIMEOUT"] = "soon"
    result = shop.flask("drain-test")

    assert result.returncode == 1
    assert "HEALTH_TIMEOUT must be a duration" in result.stderr


def test_everything_ends_with_it(shop: Shop) -> None:
    """SIGTERM to the command ends both servers and removes what it made."""
    command = [sys.executable, "-m", "flask", "prod", "drain-test", "--workers", "1", "--seconds", "30"]
    with subprocess.Popen(command, cwd=shop.folder, env=shop.env, stdout=subprocess.DEVNULL) as process:
        wait_for(lambda: len(descendants(process.pid)) == 4, 20, "both servers")
        family = descendants(process.pid)
        process.send_signal(signal.SIGTERM)

        assert process.wait(20) == 143
    wait_for(lambda: not any(alive(pid) for pid in family), 10, "the end of all")
