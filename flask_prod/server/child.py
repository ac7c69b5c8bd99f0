"""One child process of the supervisor: its session, its output line by line, and its end."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from .bound import bound_to_this_process

_LONGEST = 65536
"""Bytes of a line after which it is shown although its end has not come."""


@dataclass(frozen=True)
class Program:
    """A command to keep running: its name before each line, its words, and its whole environment."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    pass_fds: tuple[int, ...] = ()


class Child:
    """One run of a program, in a session of its own.

    Ctrl-C in a terminal goes to the whole foreground group: in another session a child hears of it from the
    supervisor alone, once. The kernel sends SIGTERM when the supervisor is gone.
    """

    def __init__(self, program: Program, say: Callable[[str, str], None]) -> None:
        self.name = program.name
        self._say = say
        self._rest = b""
        self._process = subprocess.Popen(  # noqa: S603  # the words are the supervisor's, and there is no shell
            bound_to_this_process(list(program.command), signal.SIGTERM),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(program.env),
            pass_fds=program.pass_fds,
            start_new_session=True,
        )
        self.output = self._process.stdout.fileno() if self._process.stdout else -1
        os.set_blocking(self.output, False)

    @property
    def pid(self) -> int:
        """The process id, which is also the id of the session."""
        return self._process.pid

    def read(self) -> bool:
        """Show what has been written since; False at the end of the output."""
        try:
            data = os.read(self.output, _LONGEST)
        except BlockingIOError:
            return True
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) >= _LONGEST or (not data and self._rest):
            whole.append(self._rest)
            self._rest = b""
        for line in whole:
            self._say(self.name, line.decode("utf-8", "replace").rstrip("\r"))
        return bool(data)

    def ended(self) -> int | None:
        """Return the exit code once the program has ended, minus the number of a signal; else None.

        What it left behind is killed first: workers of a killed gunicorn would hold the port.
        """
        if self._process.returncode is None:
            # Looked at without being reaped: the session's id stays ours until its other members are gone.
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return None
            kill_session(self.pid)
            self._process.wait()
        return self._process.returncode

    def terminate(self) -> None:
        """Ask the program to end; it tells its own children."""
        with suppress(ProcessLookupError):  # not by Popen, which would reap it before its session is looked at
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End the program and all that it started, at once."""
        if self._process.returncode is None:
            kill_session(self.pid)
            self._process.wait()

    def close(self) -> None:
        """Show the last of the output, and close it."""
        for _ in range(100):
            if not self.read() or not self._waiting():
                break
        if self._rest:
            self._say(self.name, self._rest.decode("utf-8", "replace"))
        if self._process.stdout:
            self._process.stdout.close()

    def _waiting(self) -> bool:
        return bool(select.select([self.output], [], [], 0)[0])


def kill_session(session: int) -> None:
    """Kill every process of a session, whatever process groups it has made."""
    for _ in range(10):
        members = living_members(session)
        if not members:
            break
        for pid in members:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(session, signal.SIGKILL)  # where there is no /proc, at least the group


def living_members(session: int) -> list[int]:
    """Return the living processes of a session; none where there is no /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            state, _, _, owner = stat.read_text().rpartition(")")[2].split()[:4]
            if int(owner) == session and state not in "ZX":
                found.append(int(stat.parent.name))
    return found


def how(code: int) -> str:
    """Say how a program ended: `exit code 3`, `SIGKILL`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
