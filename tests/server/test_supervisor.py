"""The supervisor with cheap real processes; tests/cli/test_up.py has it with gunicorn and Valkey."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flask_prod.server import supervisor as module
from flask_prod.server.child import Program, how, kill_session
from flask_prod.server.supervisor import Knock, Supervisor
from tests.servers import HttpSink, alive, children, free_port, wait_for


class Said(list[tuple[str, str]]):
    """What was said, by whom."""

    def by(self, name: str) -> list[str]:
        """Return the lines of one name."""
        return [text for who, text in self if who == name]


@pytest.fixture
def said() -> Said:
    """Give a list that keeps what is said."""
    return Said()


@pytest.fixture
def supervisor(said: Said) -> Iterator[Supervisor]:
    """Give a supervisor that has entered; it leaves at the end."""
    with Supervisor(lambda name, text: said.append((name, text)), grace=1.0) as one:
        yield one


def python(code: str, name: str = "it") -> Program:
    """Return a program that runs a line of Python."""
    return Program(name, (sys.executable, "-ISuc", code))


def later(seconds: float, call: Callable[[], object]) -> None:
    """Call something from a thread while the supervisor's loop runs."""
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    timer.start()


def interrupt() -> None:
    """Send this process what Ctrl-C sends."""
    os.kill(os.getpid(), signal.SIGINT)


def nobody() -> Knock:
    """Return a knock that is never answered."""
    return Knock("127.0.0.1", free_port(), None)


def test_run_once(supervisor: Supervisor, said: Said) -> None:
    """A program is run to its end; its lines come with its name, also the last one without an end."""
    code = supervisor.run_once(python("import sys; print('one'); print('two', end=''); sys.exit(3)"))

    assert code == 3
    assert said == [("it", "one"), ("it", "two")]


def test_odd_output(supervisor: Supervisor, said: Said) -> None:
    """Bytes that are no text, endless lines and a flood of output come through."""
    flood = "import os; os.write(1, b'\\xff\\n' + b'x' * 200000 + b'\\n' + b'y\\r\\n' * 20000)"
    supervisor.run_once(python(flood))

    assert said[0] == ("it", "\N{REPLACEMENT CHARACTER}")
    assert sum(text.count("x") for _, text in said) == 200000
    assert said.by("it").count("y") == 20000


def test_stop_while_running_once(supervisor: Supervisor) -> None:
    """A signal during the first step ends it."""
    later(0.3, interrupt)
    began = time.monotonic()
    supervisor.run_once(python("import time; time.sleep(30)"))

    assert supervisor.stopping
    assert time.monotonic() - began < 15


def test_back_off(supervisor: Supervisor, said: Said) -> None:
    """A program that ends again and again waits twice as long each time, and is given up before all was ready."""
    code = supervisor.run([python("import sys; sys.exit(7)")], nobody(), lambda: None)

    assert code == 1
    assert said.by("prod") == [
        "it has ended (exit code 7); starting it again in 0.5 s",
        "it has ended (exit code 7); starting it again in 1 s",
        "it has ended 3 times (exit code 7) before all was ready; see its lines",
    ]


def test_ready_then_patient(
    supervisor: Supervisor, said: Said, http_sink: HttpSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once all was ready, a program that keeps ending is started for ever, and nothing else is harmed."""
    monkeypatch.setattr(module, "FIRST_WAIT", 0.02)
    ready: list[bool] = []
    knock = Knock("127.0.0.1", http_sink.port, "/health/live")
    later(2.5, interrupt)
    steady = python("import time; print('up'); time.sleep(60)", "steady")
    code = supervisor.run(
        [steady, python("import time; time.sleep(0.1)", "weak")], knock, lambda: ready.append(True)
    )

    assert code == 0
    assert ready == [True]
    assert http_sink.requests[0].path == "/health/live"
    assert len([line for line in said.by("prod") if line.startswith("weak has ended")]) > 3
    assert said.by("steady") == ["up"]


def test_not_ready_before_200(supervisor: Supervisor, http_sink: HttpSink) -> None:
    """An answer that is not 200 is asked again, and is no readiness."""
    http_sink.mode = 503
    later(0.5, lambda: setattr(http_sink, "mode", "ok"))
    seen: list[int] = []

    def on_ready() -> None:
        seen.append(len(http_sink.requests))
        interrupt()

    steady = python("import time; time.sleep(60)")
    supervisor.run([steady], Knock("127.0.0.1", http_sink.port, "/"), on_ready)

    assert seen[0] > 2


def test_ignores_sigterm(supervisor: Supervisor, said: Said) -> None:
    """A program that does not listen is killed when its time is up, with all that it has started."""
    code = (
        "import os, signal, time; signal.signal(15, signal.SIG_IGN)\n"
        "if not os.fork(): os.setpgid(0, 0)\n"
        "os.write(1, b'%d\\n' % os.getpid()); time.sleep(60)"
    )
    later(0.5, interrupt)
    began = time.monotonic()
    supervisor.run([python(code)], nobody(), lambda: None)

    assert 1.4 < time.monotonic() - began < 15
    assert "killed it after 1 s" in said.by("prod")
    pids = [int(text) for text in said.by("it")]
    assert len(pids) == 2
    assert not any(alive(pid) for pid in pids)


def test_orphans(supervisor: Supervisor, said: Said) -> None:
    """What a program leaves behind is gone before it is started again: it could hold the port."""
    code = "import os, time\nif not os.fork():\n    print(os.getpid()); time.sleep(60)\ntime.sleep(0.2)"
    supervisor.run_once(python(code))

    assert not alive(int(said.by("it")[0]))


def test_one_ctrl_c_passed_on_twice(supervisor: Supervisor, said: Said) -> None:
    """Two signals at the same moment are one wish; nothing is killed for it."""
    later(0.3, lambda: [interrupt(), os.kill(os.getpid(), signal.SIGTERM)])  # type: ignore[func-returns-value]
    slow = "import signal, sys, time\nsignal.signal(15, lambda *_: (time.sleep(0.4), sys.exit(0)))\ntime.sleep(60)"
    code = supervisor.run([python(slow)], nobody(), lambda: None)

    assert code == 0
    assert not [line for line in said.by("prod") if line.startswith("killed")]


class Fragile:
    """A service that ends, and cannot be started the next time."""

    def __init__(self) -> None:
        self.running = False
        self.starts = 0
        self.stopped = False

    def start(self) -> str:
        """Start; the second time fails."""
        self.starts += 1
        if self.starts == 2:
            raise OSError("disk full")
        self.running = self.starts > 2
        return "redis://here"

    def stop(self) -> None:
        """Stop."""
        self.stopped = True


def test_service(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that has ended is started again, also when that fails at first, and is stopped last."""
    monkeypatch.setattr(module, "FIRST_WAIT", 0.05)
    service = Fragile()
    later(1.2, interrupt)
    with Supervisor(lambda name, text: said.append((name, text)), grace=1.0) as supervisor:
        assert supervisor.serve("valkey", service) == "redis://here"
        supervisor.run([python("import time; time.sleep(60)")], nobody(), lambda: None)
        assert not service.stopped

    assert (service.starts, service.stopped) == (3, True)
    assert "valkey could not start: disk full" in said.by("prod")


def test_error_inside(said: Said) -> None:
    """Whatever goes wrong in the supervisor itself, nothing that it started is left, and signals are as before."""
    before = signal.getsignal(signal.SIGINT)
    family = children()

    def fail() -> None:
        raise LookupError

    with pytest.raises(LookupError), Supervisor(lambda name, text: fail()) as supervisor:
        supervisor.run([python("import time; print('x'); time.sleep(60)")], nobody(), lambda: None)

    assert children() <= family
    assert signal.getsignal(signal.SIGINT) is before


def test_programs_that_are_missing(supervisor: Supervisor, said: Said) -> None:
    """A command that does not exist ends like any other."""
    assert supervisor.run_once(Program("it", ("/no/such/command",))) != 0
    assert "No such file" in said.by("it")[-1]


@pytest.mark.parametrize(("code", "words"), [(0, "exit code 0"), (-9, "SIGKILL"), (-77, "signal 77")])
def test_how(code: int, words: str) -> None:
    """An end is told in words."""
    assert how(code) == words


def test_kill_session_that_is_gone() -> None:
    """Killing a session that has ended already is no error."""
    kill_session(2**22 - 1)


def test_bound_to_the_supervisor(tmp_path: Path) -> None:
    """Children end when the supervisor is killed with -9, whatever the terminal does."""
    code = (
        "import sys; from flask_prod.server.supervisor import *\n"
        "say = lambda name, text: print(text, flush=True)\n"
        "with Supervisor(say) as s:\n"
        "    s.run_once(Program('it', (sys.executable, '-ISuc', "
        "'import os, time; print(os.getpid()); time.sleep(60)')))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
    wait_for(lambda: not alive(pid), 15, "the end of the child")
