"""A deploy rehearsed on this machine: two gunicorns of one application, signals to them, and who notices."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from flask_prod.core.errors import ProdKitError

from . import multiprocess
from .bound import bound_to_this_process
from .child import how, kill_session, living_members
from .load import HOST, Load, Rotation, Tally, status

START = 60.0
"""Seconds within which an application must answer."""

PAUSE = 0.01
"""Seconds that a client rests between two requests: the servers need the processors to start, too."""

_TAIL = 15
"""So many lines of a server's output are shown when it does not do what it should."""


class RehearsalFailed(ProdKitError):
    """The rehearsal could not be held; the text says why, with the end of the server's output."""


@dataclass(frozen=True)
class Script:
    """What is rehearsed: a server's command, what it is to load, its environment, and how long things take."""

    command: tuple[str, ...]
    target: str
    env: Mapping[str, str]
    ready: str | None
    """The path of the readiness probe; None where there is none to follow."""

    paths: tuple[str, ...] = ("/",)
    clients: int = 8
    seconds: float = 2.0
    """Seconds of load before and after each signal."""

    lag: float = 1.0
    """Seconds after which the balancer acts on what readiness says."""

    end: float = 40.0
    """Seconds after which a server that was asked to end is late, and killed."""


@dataclass(frozen=True)
class Scene:
    """What one signal did."""

    round: int
    signal: str
    tally: Tally
    seconds: float
    """How long the server took to end, or to replace its workers."""

    ended: str = ""
    """How it ended, empty where that was well or not the question."""

    left: tuple[str, ...] = ()
    """What it left behind."""

    @property
    def good(self) -> bool:
        """Whether nobody noticed, and nothing is left."""
        return not (self.tally.lost or self.ended or self.left)


def _free_port() -> int:
    """Return a port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@dataclass
class Instance:
    """One gunicorn on a port of its own, with a temporary directory of its own."""

    number: int
    script: Script
    folder: Path
    port: int = field(default_factory=_free_port)
    _process: subprocess.Popen[bytes] | None = None
    _memory: frozenset[Path] = frozenset()

    @property
    def temporary(self) -> Path:
        """Its temporary directory."""
        return self.folder / f"tmp{self.number}"

    @property
    def running(self) -> bool:
        """True while the master lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def workers(self) -> frozenset[int]:
        """The process ids below the master; none where there is no /proc."""
        if self._process is None:
            return frozenset()
        with suppress(OSError):
            path = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
            return frozenset(int(pid) for pid in path.read_text().split())
        return frozenset()

    @property
    def said(self) -> str:
        """The last lines of its output."""
        text = (self.folder / f"output{self.number}").read_text(errors="replace")
        return "\n".join(text.splitlines()[-_TAIL:])

    def __enter__(self) -> Self:
        self.temporary.mkdir()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            kill_session(self._process.pid)
            self._process.wait()

    def start(self) -> None:
        """Start, and return when it answers; RehearsalFailed otherwise."""
        command = [*self.script.command, "--bind", f"{HOST}:{self.port}", self.script.target]
        env = {**self.script.env, "PORT": str(self.port), "TMPDIR": str(self.temporary)}
        with open(self.folder / f"output{self.number}", "wb") as output:
            self._process = subprocess.Popen(  # noqa: S603  # the words are ours, and there is no shell
                bound_to_this_process(command, signal.SIGTERM),
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, start_new_session=True,
            )  # fmt: skip
        end = time.monotonic() + START
        probe = self.script.ready or self.script.paths[0]
        while status(self.port, probe, 5.0) in (0, 503):
            if not self.running or time.monotonic() > end:
                why = "ended" if not self.running else f"did not get ready within {START:g} s"
                raise RehearsalFailed(f"The application {why} at its start. gunicorn's last lines:\n{self.said}")
            time.sleep(0.1)

    def send(self, number: int) -> None:
        """Send a signal to the master."""
        if self._process is not None:
            self._memory = own_memory(self._process.pid)
            self._process.send_signal(number)

    def end(self) -> str:
        """Wait for the end; return how it was, empty for exit code 0 in time."""
        if self._process is None:
            return "never started"
        try:
            code = self._process.wait(self.script.end)
        except subprocess.TimeoutExpired:
            kill_session(self._process.pid)
            self._process.wait()
            return f"killed after {self.script.end:g} s"
        return how(code) if code else ""

    def left(self) -> tuple[str, ...]:
        """Return what is still there of a server that has ended."""
        return tuple(self._left())

    def _left(self) -> Iterator[str]:
        if self._process is not None:
            yield from (f"process {pid}" for pid in living_members(self._process.pid))
        with suppress(OSError), socket.create_connection((HOST, self.port), 0.5):
            yield f"listener on port {self.port}"
        run_dir = f"flask-prod-{os.getuid()}-"  # it outlives processes: see core/run_dir.py
        for path in self.temporary.iterdir():
            if not path.name.startswith(run_dir):
                yield f"temporary file {path.name}"
        yield from (f"shared memory {folder}" for folder in self._memory if folder.exists())


def rehearse(script: Script, rounds: int, show: Callable[[Scene], None]) -> list[Scene]:
    """Send SIGTERM to one instance and SIGHUP to the other in each round, under load; return what happened."""
    with _cast(script) as instances:
        rotation = Rotation([one.port for one in instances], script.ready, script.lag)
        with rotation:
            _look_around(script, instances)
            scenes = []
            for number in range(1, rounds + 1):
                first, second = instances[number % 2], instances[(number + 1) % 2]
                for scene in (_term(script, rotation, first, number), _hup(script, rotation, second, number)):
                    show(scene)
                    scenes.append(scene)
    return scenes


@contextmanager
def _cast(script: Script) -> Iterator[tuple[Instance, ...]]:
    """Start both instances, one after the other as a deploy does; both are gone at the end."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flask-prod-rehearsal-")))
        yield tuple(stack.enter_context(Instance(number, script, folder)) for number in (1, 2))


def _look_around(script: Script, instances: Sequence[Instance]) -> None:
    """Refuse paths that fail before anything was done: nothing could be learnt from them."""
    for path in script.paths:
        code = status(instances[0].port, path, 10.0)
        if code == 0 or code >= 500:
            said = f"answers {code}" if code else "does not answer"
            raise RehearsalFailed(
                f"{path} {said} before any signal was sent. Choose others with --path, or see to it that the "
                "application works here (has `flask prepare` been run?). gunicorn's last lines:\n"
                f"{instances[0].said}"
            )


def _term(script: Script, rotation: Rotation, instance: Instance, number: int) -> Scene:
    """Stop one instance as a deploy does, start it anew, and wait until it takes part again."""
    with Load(rotation, script.paths, script.clients, PAUSE) as load:
        time.sleep(script.seconds)
        began = time.monotonic()
        instance.send(signal.SIGTERM)
        ended = instance.end()
        seconds, left = time.monotonic() - began, instance.left()
        instance.start()
        _wait_until(lambda: instance.port in rotation.ports)
        time.sleep(script.seconds)
    return Scene(number, "TERM", load.tally, seconds, ended, left)


def _hup(script: Script, rotation: Rotation, instance: Instance, number: int) -> Scene:
    """Let one instance reload, and wait until all of its workers are new."""
    old = instance.workers
    with Load(rotation, script.paths, script.clients, PAUSE) as load:
        time.sleep(script.seconds)
        began = time.monotonic()
        instance.send(signal.SIGHUP)
        replaced = _wait_until(lambda: len(instance.workers - old) >= len(old) and not instance.workers & old)
        seconds = time.monotonic() - began
        time.sleep(script.seconds)
    ended = "" if replaced or not old else "kept its old workers"
    return Scene(number, "HUP", load.tally, seconds, ended)


def _wait_until(condition: Callable[[], bool], seconds: float = START) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def own_memory(pid: int, place: Path = multiprocess.SHARED_MEMORY) -> frozenset[Path]:
    """Return the directories in shared memory in which a process holds files; none without /proc."""
    found = set()
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        with suppress(OSError):
            target = Path(os.readlink(link))
            if target.parent.parent == place:
                found.add(target.parent)
    return frozenset(found)
