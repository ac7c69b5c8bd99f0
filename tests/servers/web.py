"""Real gunicorn."""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from .process import HOST, Server, alive, children, free_port, wait_for


@dataclass
class Answer:
    """What a server said to `Gunicorn.get`."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Gunicorn(Server):
    """Real gunicorn on a free port; `source` is the text of a module called `app`, put on its path.

    `config` is a path, a `python:module`, or the text of a configuration file; None for none at all.
    `ready` is the path that must answer, with any status, before `start` returns.
    """

    def __init__(
        self,
        app: str = "app:create_app()",
        *,
        source: str | None = None,
        config: str | Path | None = None,
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        ready: str = "/",
    ) -> None:
        super().__init__("gunicorn")
        self.port = free_port()
        self.app = app
        self.args = tuple(args)
        self.cwd = cwd or self.folder
        self.ready = ready
        self.config = self._config(config)
        self.env = {**os.environ, "PORT": str(self.port), "HOST": HOST, "PYTHONUNBUFFERED": "1"}
        self.env |= {"DRAIN_SECONDS": "0", **(env or {})}  # nobody waits for a load balancer here
        root = Path(__file__).parents[2]
        self.env["PYTHONPATH"] = os.pathsep.join((str(self.folder), str(root)))
        if source is not None:
            (self.folder / "app.py").write_text(source)

    @property
    def url(self) -> str:
        """The address without a slash at its end."""
        return f"http://{HOST}:{self.port}"

    def start(self) -> Self:
        """Start, and return when it answers and all workers run; RuntimeError with its output if it ends."""
        command = [sys.executable, "-m", "gunicorn", "-c", self.config, "--bind", f"{HOST}:{self.port}"]
        self.process.launch([*command, *self.args, self.app], self.env, self.cwd)
        try:
            wait_for(self._answers, 30, "gunicorn's first answer")
            wait_for(lambda: len(self.worker_pids()) >= self._asked(), 10, "all workers")
        except TimeoutError as error:
            raise RuntimeError(f"gunicorn does not answer:\n{self.stdout}\n{self.stderr}") from error
        return self

    def _asked(self) -> int:
        """Return how many workers the command line asks for; gunicorn starts them one after the other."""
        asked = [self.args[at + 1] for at, one in enumerate(self.args[:-1]) if one in ("-w", "--workers")]
        return int(asked[-1]) if asked else 1

    def stop(self) -> None:
        """Stop with SIGTERM, and kill what is left after ten seconds."""
        self.process.finish(10)

    def worker_pids(self) -> list[int]:
        """Return the process ids of the living workers."""
        return sorted(pid for pid in children(self.pid) if alive(pid))

    def term(self) -> None:
        """Send SIGTERM to the master, without waiting."""
        self.process.send(signal.SIGTERM)

    def signal(self, number: int) -> None:
        """Send a signal to the master."""
        self.process.send(number)

    def wait(self, seconds: float = 30.0) -> int:
        """Return the exit code of the master."""
        return self.process.wait(seconds)

    @property
    def stdout(self) -> str:
        """All that master and workers have written to standard output so far."""
        return self.process.stdout

    @property
    def stderr(self) -> str:
        """All that master and workers have written to standard error so far."""
        return self.process.stderr

    def get(self, path: str = "/", headers: Mapping[str, str] | None = None, timeout: float = 10.0) -> Answer:
        """Send GET by a connection of its own."""
        return self.request("GET", path, headers=headers, timeout=timeout)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 10.0,
    ) -> Answer:
        """Send one request by a connection of its own."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=timeout)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def _config(self, config: str | Path | None) -> str:
        if config is None:
            return os.devnull
        if isinstance(config, Path) or config.startswith("python:"):
            return str(config)
        path = self.folder / "gunicorn_test_conf.py"
        path.write_text(config)
        return str(path)

    def _answers(self) -> bool:
        if not self.running:
            raise RuntimeError(f"gunicorn ended with {self.process.wait(1)}:\n{self.stdout}\n{self.stderr}")
        with suppress(OSError, http.client.HTTPException):
            return bool(self.get(self.ready, timeout=5).status)
        return False
