"""`watch.sh`: a release that is well stays, another one does not."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import Gunicorn

TOKEN = "a-token-of-thirty-two-characters-"
APP = """
from flask import Flask
from flask_prod import ProdKit

def create_app():
    app = Flask("shop")
    ProdKit(app, only=("health", "logs"))
    return app
"""

Watch = Callable[..., "subprocess.Popen[str]"]

pytestmark = pytest.mark.deploy


@pytest.fixture(scope="module")
def service() -> Iterator[Gunicorn]:
    """Run a service that says it is version 2, for all tests; the last one stops it."""
    environ = {"ENVIRONMENT": "test", "HEALTH_TOKEN": TOKEN, "SERVICE_VERSION": "2"}
    with Gunicorn(source=APP, env=environ, args=["-w", "1"]) as running:
        yield running


@pytest.fixture
def watch(rendered: Path, service: Gunicorn) -> Watch:
    """Start the script against the service, once a second."""

    def start(version: str, seconds: int, **environ: str) -> subprocess.Popen[str]:
        script = rendered / "scripts" / "watch.sh"
        return subprocess.Popen(
            [str(script), service.url, version, str(seconds)],
            env={"PATH": "/usr/bin:/bin", "POLL_SECONDS": "1", **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def test_well(watch: Watch) -> None:
    """What is well for the whole time ends with 0; nothing of the token is told."""
    process = watch("2", 2, HEALTH_TOKEN=TOKEN)
    told, _ = process.communicate(timeout=30)

    assert (process.returncode, told) == (0, "All well for 2 seconds.\n")


def test_stranger(watch: Watch) -> None:
    """Without a token it hears one word, and that is enough to go on; the version is not asked."""
    process = watch("another", 1)
    told, _ = process.communicate(timeout=30)

    assert process.returncode == 0, told


def test_withheld(watch: Watch) -> None:
    """A token that does not get through is told, and the watch goes on with what strangers hear."""
    process = watch("2", 1, HEALTH_TOKEN="another-token-of-thirty-two-letters")
    told, _ = process.communicate(timeout=30)

    assert process.returncode == 0, told
    assert told.startswith("A proxy keeps the token to itself")


def test_version(rendered: Path, service: Gunicorn) -> None:
    """Another version than the one deployed is a failure, which names both."""
    script = rendered / "scripts" / "watch.sh"
    done = subprocess.run(
        [str(script), service.url, "3", "1"],
        env={"PATH": "/usr/bin:/bin", "POLL_SECONDS": "1", "PATIENCE": "2", "HEALTH_TOKEN": TOKEN},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr == "2 serves, not 3.\n"


def test_gone(watch: Watch, service: Gunicorn) -> None:
    """A service that stops answering is given up after the third time, with the reason of each."""
    process = watch("2", 60, HEALTH_TOKEN=TOKEN)
    time.sleep(2)  # it has begun to watch
    service.stop()
    told, _ = process.communicate(timeout=30)

    assert process.returncode == 1
    assert told.count("not ready: curl: (") == 3
    assert "this release should not stay" in told
    assert TOKEN not in told
