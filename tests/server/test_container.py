"""As in a hardened container: process 1, a read-only root, no HOME, no writable /tmp, a user nobody knows."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import servers
from tests.servers import Gunicorn, wait_for

READ_ONLY = (
    "awk '{print $2}' /proc/mounts | while read place; do mount -o remount,ro,bind $place 2>/dev/null; done"
)
SHOP = """
import os

from flask import Flask
from flask_prod import ProdKit


def create_app():
    app = Flask("shop")
    ProdKit(app)

    @app.get("/")
    def home():
        return "home"

    @app.get("/orphan")
    def orphan():
        child = os.fork()
        if not child:
            if not os.fork():
                os.execvp("sleep", ["sleep", "0.2"])
            os._exit(0)
        os.waitpid(child, 0)
        return "left"

    @app.get("/where")
    def where():
        try:
            open("/tmp/flask-prod-probe", "w").close()
            return "writable"
        except OSError:
            return f"{os.getppid()} {os.getuid()} {os.environ.get('HOME')}"

    return app
"""
USER = 54321


def _unable() -> str:
    """Return why this machine cannot make a container; nothing if it can."""
    if os.geteuid() != 0 or not (shutil.which("unshare") and shutil.which("setpriv")):
        return "needs root, unshare and setpriv"
    tried = subprocess.run(["unshare", "-m", "-p", "-f", "--mount-proc", "true"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else f"no namespaces here: {tried.stderr.decode(errors='replace')}"


def _user() -> list[str]:
    """Return what becomes a user without a name, who may read this Python wherever it lies."""
    reads = "+dac_read_search"
    become = [
        "setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups", "--inh-caps", reads,
        "--ambient-caps", reads,
    ]  # fmt: skip
    tried = subprocess.run([*become, sys.executable, "-c", "import flask"], capture_output=True, check=False)
    return become if tried.returncode == 0 else []


UNABLE = _unable()
pytestmark = pytest.mark.skipif(bool(UNABLE), reason=UNABLE or "can")


class Contained(Gunicorn):
    """A gunicorn that is process 1 of namespaces of its own."""

    become: list[str]

    def launch(self, command: list[str]) -> None:
        inside = f'{READ_ONLY}; exec "$@"'
        words = ["unshare", "-m", "-p", "-f", "--mount-proc", "--kill-child", "sh", "-c", inside, "sh"]
        self.process.launch([*words, *self.become, "env", "-u", "HOME", *command], self.env, self.cwd)

    def start(self) -> Contained:
        self.become = _user()
        self.folder.chmod(0o755)
        command = [sys.executable, "-m", "gunicorn", "-c", self.config, "--bind", f"127.0.0.1:{self.port}"]
        self.launch([*command, *self.args, self.app])
        wait_for(self._answers, 30, "gunicorn's first answer")
        return self

    @property
    def first(self) -> int:
        """The process that is number 1 inside."""
        (pid,) = servers.children(self.pid)
        return pid


@pytest.fixture(scope="module")
def contained() -> Iterator[Contained]:
    env = {"SECURITY_FORCE_HTTPS": "0", "PYTHONDONTWRITEBYTECODE": "1", "DRAIN_SECONDS": "1.5"}
    with Contained(source=SHOP, config="python:flask_prod.server.gunicorn_conf", env=env) as server:
        yield server


def test_serves(contained: Contained) -> None:
    """It serves, with one worker and one warning since no place is left for shared metrics."""
    assert contained.get("/").text == "home"
    master, user, home = contained.get("/where").text.split()
    assert (master, home) == ("1", "None")
    assert user == (str(USER) if contained.become else "0")
    assert contained.get("/health/ready").status == 200
    assert len(servers.children(contained.first)) == 1
    assert contained.stderr.count("running one worker") == 1


def test_orphans_are_buried(contained: Contained) -> None:
    """A process whose parent has gone is process 1's, which does not let it become a zombie."""
    assert contained.get("/orphan").text == "left"
    wait_for(lambda: len(servers.children(contained.first)) == 2, 15, "the orphan")
    wait_for(lambda: len(servers.children(contained.first)) == 1, 15, "its burial")


def test_stops(contained: Contained) -> None:
    """SIGTERM reaches process 1, which drains and ends with 0."""
    os.kill(contained.first, signal.SIGTERM)
    wait_for(lambda: contained.get("/health/ready").status == 503, 1.4, "the drain")

    assert contained.wait(10) == 0


def test_worker(tmp_path: Path, shared_valkey: servers.Valkey) -> None:
    """`flask prod worker` lives there too, and SIGTERM ends it with 0."""
    env = {"REDIS_URL": shared_valkey.url, "PYTHONDONTWRITEBYTECODE": "1", "FLASK_APP": "app:create_app"}
    server = Contained(source=SHOP, env=env)
    server.become = _user()
    server.folder.chmod(0o755)
    try:
        server.launch([sys.executable, "-m", "flask", "prod", "worker", "--queues", "default"])
        wait_for(lambda: "serves default" in server.stdout + server.stderr or not server.running, 20, "the worker")
        assert server.running, server.stdout + server.stderr
        wait_for(lambda: len(servers.children(server.first)) == 1, 10, "its child")
        os.kill(server.first, signal.SIGTERM)
        assert server.wait(15) == 0, server.stderr
    finally:
        server.close()
