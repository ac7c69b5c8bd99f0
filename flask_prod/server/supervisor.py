"""Keeps a few programs running until it is told to stop: output by name, restarts with back-off, one clean end.

One thread and one loop: signals, the output of children and the answer of the web server all wake the same select.
"""

from __future__ import annotations

import selectors
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Protocol, Self, TypeAlias

from .child import Child, Program, how

GRACE = 4.0
"""Seconds between the request to end and the kill; with what follows, all is gone within five."""

STEADY = 30.0
"""Seconds a program must have run for its next end to count as the first one."""

FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
"""Seconds before the first restart; each further one waits twice as long."""

TRIES = 3
"""Ends of one program before everything was ready once, after which starting has failed."""

INSISTED = 0.25
"""Seconds after which another signal is a second wish: some parents pass on one Ctrl-C twice."""

FAILED, KILLED = 1, 130
"""Exit codes: could not start, and ended by a second Ctrl-C."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)
_TICK = 1.0

Say: TypeAlias = Callable[[str, str], None]

OWN = "prod"
"""The name before the supervisor's own lines."""


class Service(Protocol):
    """Something that runs beside the programs and ends after them: the local Valkey."""

    @property
    def running(self) -> bool:
        """True while it lives."""

    def start(self) -> str:
        """Start, also again, and return its address."""

    def stop(self) -> None:
        """Stop; nothing happens when it has ended."""


@dataclass
class Kept:
    """A program that is to be kept running: its present child, and how it went so far."""

    program: Program
    child: Child | None = None
    began: float = 0.0
    ends: int = 0
    due: float | None = 0.0


class Supervisor:
    """Use as a context manager: on leaving, nothing that it started is left."""

    def __init__(self, say: Say, grace: float = GRACE) -> None:
        self._say_to = say
        self._grace = grace
        self._stops = 0
        self._last_stop = 0.0
        self._failed = False
        self._kept: list[Kept] = []
        self._services: list[tuple[str, Service, Kept]] = []
        self._selector = selectors.DefaultSelector()
        self._knock: Knock | None = None
        self._on_ready: Callable[[], None] = lambda: None
        self.ready = False

    def __enter__(self) -> Self:
        self._woken, self._wake = socket.socketpair()
        self._woken.setblocking(False)
        self._wake.setblocking(False)
        self._handlers = {number: signal.signal(number, _nothing) for number in _SIGNALS}
        self._wakeup = signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        self._selector.register(self._woken, selectors.EVENT_READ, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for kept in self._kept:
            if kept.child is not None:
                kept.child.kill()
                self._bury(kept)
        for _, service, _ in reversed(self._services):
            service.stop()
        if self._knock is not None:
            self._knock.close()
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._selector.close()
        self._woken.close()
        self._wake.close()

    @property
    def stopping(self) -> bool:
        """True once a signal asked for the end."""
        return self._stops > 0

    def serve(self, name: str, service: Service) -> str:
        """Start a service, keep it running, and return its address."""
        address = service.start()
        self._services.append((name, service, Kept(Program(name, ()), began=time.monotonic(), due=None)))
        return address

    def run_once(self, program: Program) -> int:
        """Run a program to its end and return its exit code; when asked to stop, it is told to end."""
        kept = Kept(program)
        self._kept.append(kept)
        self._start(kept)
        while (code := self._ended(kept)) is None and not self._stops:
            self._turn(_TICK)
        if code is None:
            code = self._end_all()
        self._kept.remove(kept)
        return code

    def run(self, programs: Sequence[Program], knock: Knock, on_ready: Callable[[], None]) -> int:
        """Keep *programs* running until a signal comes; return the exit code for this process."""
        self._kept += [Kept(program) for program in programs]
        self._knock, self._on_ready = knock, on_ready
        while not self._stops and not self._failed:
            for kept in self._kept:
                self._tend(kept)
            for name, service, kept in self._services:
                self._tend_service(name, service, kept)
            self._ask_ready()
            self._turn(self._pause())
        if not self._failed:
            self._say("stopping; Ctrl-C again ends everything at once")
        self._end_all()
        return FAILED if self._failed else KILLED if self._stops > 1 else 0

    def _turn(self, seconds: float) -> None:
        """Wait for something to happen, and do what follows from it."""
        for key, _ in self._selector.select(max(0.0, seconds)):
            key.data()

    def _hear(self) -> None:
        """Count the wishes to stop; every other signal has done its work by waking us."""
        with suppress(BlockingIOError):
            for number in self._woken.recv(4096):
                if number != signal.SIGCHLD:
                    self._wish_to_stop()

    def _wish_to_stop(self) -> None:
        now = time.monotonic()
        if now - self._last_stop > INSISTED:
            self._stops += 1
        self._last_stop = now

    def _start(self, kept: Kept) -> None:
        kept.began, kept.due = time.monotonic(), None
        child = kept.child = Child(kept.program, self._speak)
        self._selector.register(child.output, selectors.EVENT_READ, lambda: self._read(child))

    def _read(self, child: Child) -> None:
        if not child.read():
            self._selector.unregister(child.output)

    def _ended(self, kept: Kept) -> int | None:
        """Return the exit code of a child that has ended, after its last words; None while it runs."""
        if kept.child is None:
            return None
        code = kept.child.ended()
        if code is not None:
            self._bury(kept)
        return code

    def _bury(self, kept: Kept) -> None:
        child, kept.child = kept.child, None
        if child is not None:
            with suppress(KeyError):
                self._selector.unregister(child.output)
            child.close()

    def _tend(self, kept: Kept) -> None:
        """Start what is due, and plan the restart of what has ended."""
        if kept.due is not None and time.monotonic() >= kept.due:
            self._start(kept)
        code = self._ended(kept)
        if code is None:
            return
        seconds = self._plan(kept)
        if not self.ready and kept.ends >= TRIES:
            self._failed = True
            self._say(
                f"{kept.program.name} has ended {TRIES} times ({how(code)}) before all was ready; see its lines"
            )
        else:
            self._say(f"{kept.program.name} has ended ({how(code)}); starting it again in {seconds:g} s")

    def _tend_service(self, name: str, service: Service, kept: Kept) -> None:
        if kept.due is None and not service.running:
            self._say(f"{name} has ended; starting it again in {self._plan(kept):g} s")
        elif kept.due is not None and time.monotonic() >= kept.due:
            kept.began, kept.due = time.monotonic(), None
            try:
                service.start()
            except Exception as error:  # it says why, and is asked again later
                self._say(f"{name} could not start: {error}")

    def _plan(self, kept: Kept) -> float:
        """Decide when to start again; return the seconds until then."""
        now = time.monotonic()
        kept.ends = 1 if now - kept.began >= STEADY else kept.ends + 1
        seconds = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** (min(kept.ends, 20) - 1))
        kept.due = now + seconds
        return seconds

    def _pause(self) -> float:
        dues = [kept.due for kept in (*self._kept, *(one[2] for one in self._services)) if kept.due is not None]
        if self._knock is not None and not self._knock.waiting:
            dues.append(self._knock.due)
        return min([_TICK, *(due - time.monotonic() for due in dues)])

    def _ask_ready(self) -> None:
        knock = self._knock
        if knock is None or knock.waiting or time.monotonic() < knock.due or not knock.begin():
            return
        self._selector.register(knock.fileno(), selectors.EVENT_READ, self._hear_answer)

    def _hear_answer(self) -> None:
        knock = self._knock
        if knock is None:
            return
        self._selector.unregister(knock.fileno())
        if knock.end():
            self._knock = None
            self.ready = True
            self._on_ready()

    def _end_all(self) -> int:
        """Ask every child to end, kill those that do not in time; return the last exit code."""
        code = 0
        for kept in self._kept:
            if kept.child is not None:
                kept.child.terminate()
        asked, deadline = self._stops, time.monotonic() + self._grace
        while running := [kept for kept in self._kept if kept.child is not None]:
            if self._stops > max(asked, 1) or time.monotonic() > deadline:
                self._kill(running)
            for kept in running:
                code = self._ended(kept) or code
            if any(kept.child is not None for kept in running):
                self._turn(min(0.1, deadline - time.monotonic()))
        return code

    def _kill(self, running: Sequence[Kept]) -> None:
        names = ", ".join(kept.program.name for kept in running)
        reason = "on the second Ctrl-C" if self._stops > 1 else f"after {self._grace:g} s"
        self._say(f"killed {names} {reason}")
        for kept in running:
            if kept.child is not None:
                kept.child.kill()

    def _say(self, text: str) -> None:
        self._speak(OWN, text)

    def _speak(self, name: str, text: str) -> None:
        try:
            self._say_to(name, text)
        except BrokenPipeError:  # nobody reads any more (`| head`): there is no reason to go on
            self._say_to = _nobody
            self._wish_to_stop()


class Knock:
    """Asks the web server whether it answers: the question waits in its queue until a worker is there."""

    def __init__(self, host: str, port: int, path: str | None) -> None:
        self._address = (host, port)
        self._path = path
        self._socket: socket.socket | None = None
        self.due = 0.0

    @property
    def waiting(self) -> bool:
        """True between the question and its answer."""
        return self._socket is not None

    def fileno(self) -> int:
        """Return the file to wait for."""
        return self._socket.fileno() if self._socket else -1

    def begin(self) -> bool:
        """Ask; False while nobody listens."""
        self.due = time.monotonic() + 0.1
        try:
            self._socket = socket.create_connection(self._address, 0.2)
            self._socket.sendall(f"GET {self._path or '/'} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        except OSError:
            self.close()
            return False
        return True

    def end(self) -> bool:
        """Read the answer; True when it is 200, or anything where the application has no probe."""
        try:
            line = self._socket.recv(64) if self._socket else b""
        except OSError:
            line = b""
        self.close()
        return line[:5] == b"HTTP/" and (self._path is None or line[8:12] == b" 200")

    def close(self) -> None:
        """Give up the question."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Let a signal wake the loop by its file instead of ending the process."""


def _nobody(_name: str, _text: str) -> None:
    return
