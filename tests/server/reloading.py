"""A service of three workers whose settings file changes under load, and what each worker has of it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.load import Load
from tests.servers import Gunicorn

SOURCE = """
import os
from flask import Flask
from flask_prod import ProdKit

def create_app():
    app = Flask("shop")
    prod = ProdKit(app, without=("jobs", "database", "migrations", "backups"))
    state = app.extensions["prod"]

    @app.get("/")
    def index():
        return "hello"

    @app.get("/settings")
    def settings():
        limits, logs = state.contributions["ratelimit"].handle, state.contributions["logs"].handle
        cors = str(app.config.get("CORS_ORIGINS"))
        public = limits._rules.policies["public"].points
        return {"pid": os.getpid(), "public": public, "level": logs.level, "slow": logs._slow, "cors": cors}

    return app
"""

WORKERS = 3
IN_TIME = 2.0
"""Seconds within which all workers have the same settings."""

BROKEN = (
    "RATE_LIMIT_PUBLIC = = 7",
    'RATE_LIMIT_PUBLIC = 7\nLOG_LEVEL = "LOUD"',
    "RATE_LIMIT_PUBLIC = 0",
    'RATE_LIMIT_PUBLIC = 7\nALLOWED_ORIGINS = ["https://*"]',
    'RATE_LIMIT_PUBLIC = 7\nLOG_SLOW_REQUEST = "${NOBODY}"',
    'RATE_LIMIT_PUBLIC = 7\ninherits = "nothing"',
)


class Reloading:
    """Changes the file again and again, and measures how long it takes until all workers agree."""

    def __init__(self, folder: Path) -> None:
        self.profile = folder / "config" / "production.toml"
        self.profile.parent.mkdir()
        self.write("RATE_LIMIT_PUBLIC = 100000\n")
        env = {
            "ENVIRONMENT": "production",
            "SECRET_KEY": "s" * 40,
            "SECURITY_FORCE_HTTPS": "false",
            "CONFIG_DIR": str(self.profile.parent),
            "RUN_DIR": str(folder / "run"),
        }
        self.server = Gunicorn(
            source=SOURCE, args=("-w", str(WORKERS), "--threads", "4", "-k", "gthread"), env=env,
            config="python:flask_prod.server.gunicorn_conf", ready="/settings",
        )  # fmt: skip
        self.seconds: list[float] = []

    def write(self, text: str) -> None:
        """Write the profile in one step."""
        draft = self.profile.with_suffix(".draft")
        draft.write_text(text)
        os.replace(draft, self.profile)

    def run(self, rounds: int) -> list[str]:
        """Change the file so many times, valid and broken in turn, under load; return what went wrong."""
        wrong: list[str] = []
        with Load(self.server, clients=4) as load:
            now = 100_000
            for turn in range(rounds):
                if turn % 2:
                    wrong += self._broken(BROKEN[turn // 2 % len(BROKEN)], now)
                else:
                    now = 100_001 + turn
                    wrong += self._valid(now, "DEBUG" if turn % 4 else "INFO")
        visits = load.visits
        failed = [visit for visit in visits if visit.status != 200]
        if failed or not visits:
            wrong.append(f"{len(failed)} of {len(visits)} requests failed: {failed[:3]}")
        return wrong

    def _valid(self, public: int, level: str) -> list[str]:
        origin = f"https://shop-{public}.example"
        self.write(
            f'RATE_LIMIT_PUBLIC = {public}\nLOG_LEVEL = "{level}"\nLOG_SLOW_REQUEST = {public}\n'
            f'ALLOWED_ORIGINS = ["{origin}"]\n'
        )
        number = {"DEBUG": 10, "INFO": 20}[level]
        pattern = origin.removeprefix("https://").partition(".")[0]

        def agreed(state: dict[str, Any]) -> bool:
            values = (state["public"], state["level"], state["slow"])
            return values == (public, number, public) and pattern in json.dumps(state["cors"]).replace("\\", "")

        return self._until(agreed, f"public={public}")

    def _broken(self, text: str, public: int) -> list[str]:
        before = self._refusals()
        self.write(text)
        wrong = self._when(lambda: self._refusals() == before + 1, f"no refusal of {text!r}")
        time.sleep(0.3)
        told = self._refusals() - before
        if told > 1:
            wrong.append(f"{text!r} was refused {told} times")
        return wrong + self._until(lambda state: state["public"] == public, f"unchanged by {text!r}")

    def _refusals(self) -> int:
        return self.server.stdout.count("prod.settings.refused")

    def _until(self, agreed: Callable[[dict[str, Any]], bool], what: str) -> list[str]:
        """Ask until every worker agrees; return what is wrong when that takes too long."""
        began, agreeing, last = time.monotonic(), set[int](), {}
        while len(agreeing) < WORKERS and time.monotonic() - began < 10:
            last = self.server.get("/settings").json
            if agreed(last):
                agreeing.add(last["pid"])
            else:
                agreeing.discard(last["pid"])
                time.sleep(0.02)
        self.seconds.append(time.monotonic() - began)
        if self.seconds[-1] > IN_TIME:
            return [f"{what}: {len(agreeing)} workers after {self.seconds[-1]:.1f} s, last {last}"]
        return []

    def _when(self, condition: Callable[[], bool], what: str) -> list[str]:
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > IN_TIME:
                return [what]
            time.sleep(0.02)
        return []
