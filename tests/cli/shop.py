"""A tiny application in a folder of its own, and `flask` run on it as a user would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.servers import Process, alive, children, free_port, wait_for

ROOT = Path(__file__).parent.parent.parent

SOURCE = """
import os, time
import click
from flask import Flask
from flask_prod import ProdKit
from flask_prod.core.component import Component, Contribution
from flask_prod.core.settings import Section

prod = ProdKit(only=("health",), extra=("greeter",))


class Greeter(Component):
    name = "greeter"

    def install(self, app, settings, kit):
        @click.command("worker")
        def worker():
            "Work."
            print("working", os.getpid(), os.environ.get("REDIS_URL"), flush=True)
            while True:
                time.sleep(0.1)

        return Contribution(handle=None, commands=(worker,))


prod._components["greeter"] = Greeter()


@prod.get("health").check("payments", critical=False)
def payments():
    return not os.path.exists("payments-down")


def create_app():
    app = Flask("shop")
    prod.init_app(app)

    @app.get("/")
    def index():
        return "hello"

    @app.get("/slow")
    def slow():
        time.sleep(30)

    @app.cli.command("prepare")
    def prepare():
        if os.path.exists("migration-broken"):
            raise RuntimeError("table orders exists")
        with open("prepared", "a") as file:
            file.write("x")
        print("prepared")

    return app
"""


class Shop:
    """A folder with shop.py, and what is run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        (folder / "shop.py").write_text(SOURCE)
        self.env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "ENVIRONMENT": "test",
            "FLASK_APP": "shop",
            "PORT": str(self.port),
        }

    def flask(self, *words: str, seconds: float = 30) -> subprocess.CompletedProcess[str]:
        """Run `flask prod ...` to its end."""
        command = [sys.executable, "-m", "flask", "prod", *words]
        return subprocess.run(
            command, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=seconds, check=False
        )

    def up(self, *words: str) -> Up:
        """Start `flask prod up`; use it as a context manager."""
        return Up(self, words)


class Up:
    """A running `flask prod up`."""

    def __init__(self, shop: Shop, words: Sequence[str]) -> None:
        self.shop = shop
        self.words = words
        self.folder = shop.folder / "up"
        self.folder.mkdir(exist_ok=True)
        self.process = Process(self.folder)

    def start(self) -> None:
        """Start it."""
        command = [sys.executable, "-m", "flask", "prod", "up", *self.words]
        self.process.launch(command, self.shop.env, self.shop.folder)

    def wait_for_line(self, text: str, seconds: float = 20, count: int = 1) -> str:
        """Return the output once *text* is in it that often."""

        def seen() -> bool:
            if not self.process.running and self.process.stdout.count(text) < count:
                raise RuntimeError(f"up has ended:\n{self.process.stdout}{self.process.stderr}")
            return self.process.stdout.count(text) >= count

        try:
            wait_for(seen, seconds, f"{text!r} in the output")
        except TimeoutError as error:
            raise RuntimeError(f"{error}:\n{self.process.stdout}{self.process.stderr}") from error
        return self.process.stdout

    def family(self) -> set[int]:
        """Return every process below the supervisor."""
        return descendants(self.process.pid)

    def child(self, *words: str) -> int:
        """Return the process id of the child whose command line has all these words."""
        for pid in children(self.process.pid):
            line = Path(f"/proc/{pid}/cmdline").read_text()
            if all(word in line for word in words):
                return pid
        raise LookupError(words)

    def __enter__(self) -> Up:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        family = self.family() if self.process.running else set()
        self.process.finish(8)
        for pid in family:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)


def descendants(pid: int) -> set[int]:
    """Return all processes below *pid*."""
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        new = children(waiting.pop()) - found
        found |= new
        waiting += new
    return found


def gone(pids: set[int]) -> bool:
    """Tell whether none of these processes lives."""
    return not any(alive(pid) for pid in pids)
