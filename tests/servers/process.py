"""Processes in folders of their own, which end with the tests at the latest."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

HOST = "127.0.0.1"
BOUND = Path(__file__).parents[1] / "bound.py"
NOBODY = 65534
PREFIX = "flask-prod-test-"
TEMP = Path(tempfile.gettempdir())
"""Where server data goes; taken here, before conftest.py watches the directory that tests use."""


def free_port() -> int:
    """Return a port nobody listens on, below the range the kernel gives to outgoing connections."""
    for _ in range(200):
        port = random.randint(18000, 32000)
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return port
    raise RuntimeError("no free port found in 200 tries")


def wait_for(condition: Callable[[], Any], seconds: float = 10.0, what: str = "condition") -> Any:
    """Return the first true answer of *condition*, asked every 20 ms; TimeoutError after *seconds*."""
    end = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come true within {seconds:g} s")
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Say whether a process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")


def children(pid: int | None = None) -> set[int]:
    """Return the process ids of the children of *pid* (this process), zombies included."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid or os.getpid()}/task").glob("*/children"):
        with suppress(OSError):
            found.update(int(child) for child in task.read_text().split())
    return found


def remove_abandoned() -> None:
    """Remove the folders of servers whose test run was killed: nobody holds their locks."""
    for path in TEMP.glob(f"{PREFIX}*/lock"):
        with suppress(OSError), open(path, "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path.parent, ignore_errors=True)


class Process:
    """A command in a process group of its own, its output in files; ends with this process at the latest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def launch(
        self,
        command: Sequence[str],
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: int | None = None,
    ) -> None:
        """Start the command; its output replaces that of an earlier start."""
        if self.running:
            raise RuntimeError(f"{command[0]} is running already")
        bound = [sys.executable, "-IS", str(BOUND), str(os.getpid()), "-" if user is None else str(user), *command]
        with open(self.folder / "stdout", "wb") as out, open(self.folder / "stderr", "wb") as err:
            self.process = subprocess.Popen(
                bound, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env, cwd=cwd, start_new_session=True
            )

    @property
    def pid(self) -> int:
        """The process id; RuntimeError before the first start."""
        if self.process is None:
            raise RuntimeError("not started")
        return self.process.pid

    @property
    def running(self) -> bool:
        """True while the process lives."""
        return self.process is not None and self.process.poll() is None

    @property
    def stdout(self) -> str:
        """All it has written to standard output so far."""
        return (self.folder / "stdout").read_text(errors="replace")

    @property
    def stderr(self) -> str:
        """All it has written to standard error so far."""
        return (self.folder / "stderr").read_text(errors="replace")

    def send(self, number: int) -> None:
        """Send a signal to the process alone."""
        os.kill(self.pid, number)

    def wait(self, seconds: float = 30.0) -> int:
        """Return the exit code; TimeoutExpired after *seconds*."""
        if self.process is None:
            raise RuntimeError("not started")
        return self.process.wait(seconds)

    def kill(self) -> None:
        """End the whole process group at once, as an out-of-memory kill or a lost machine would."""
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def finish(self, seconds: float = 5.0, number: int = signal.SIGTERM) -> None:
        """Ask it to end, and kill what is left of its group after *seconds*."""
        if self.running:
            self.send(signal.SIGCONT)
            self.send(number)
            with suppress(subprocess.TimeoutExpired):
                self.wait(seconds)
        self.kill()


class Server:
    """A process with a folder of its own that goes away with it."""

    def __init__(self, prefix: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{prefix}-", dir=TEMP))
        # Held until `close`, and under its name only once it is held: see remove_abandoned.
        self._lock = open(self.folder / "unlocked", "wb")  # noqa: SIM115
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.rename(self.folder / "unlocked", self.folder / "lock")
        self.process = Process(self.folder)

    @property
    def pid(self) -> int:
        """The process id of the server."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """True while the server lives (also when it is paused)."""
        return self.process.running

    def start(self) -> Self:
        """Start, and return when it answers."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop in an orderly way; `start` works again afterwards."""
        self.process.finish()

    def kill(self) -> None:
        """Kill with -9; `start` works again afterwards."""
        self.process.kill()

    def pause(self) -> None:
        """Freeze the server: connections stay open and nothing answers."""
        self.process.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen server go on."""
        self.process.send(signal.SIGCONT)

    def close(self) -> None:
        """Stop and remove the folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()
