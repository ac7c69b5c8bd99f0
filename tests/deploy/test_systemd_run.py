"""systemd's units, run: each command under the restrictions of its unit, without systemd itself."""

from __future__ import annotations

import http.client
import json
import os
import re
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.deploy.analyze import perhaps
from tests.deploy.conftest import ROOT
from tests.deploy.test_systemd import units, words
from tests.deploy.tools import run
from tests.servers import HOST, Valkey, free_port, wait_for

__all__ = ["units"]  # a fixture

CAGE = Path(__file__).with_name("cage.py")
NUMBERS = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
"""The system calls of this kind of machine by their numbers."""


@cache
def allowed(program: str) -> tuple[int, ...]:
    """Return the numbers of the system calls that the units allow; none where they cannot be known."""
    if not program or not NUMBERS.is_file() or os.uname().machine != "x86_64":
        return ()
    numbers = dict(re.findall(r"#define __NR_(\w+) (\d+)", NUMBERS.read_text()))

    def expand(name: str) -> set[str]:
        found: set[str] = set()
        for line in run(program, "syscall-filter", name).stdout.splitlines()[1:]:
            word = line.strip()
            if word.startswith("@"):
                found |= expand(word)
            elif word and not word.startswith("#"):
                found.add(word)
        return found

    calls = expand("@system-service") - expand("@privileged") - expand("@resources")
    return tuple(int(numbers[call]) for call in sorted(calls) if call in numbers)


TRIES = """
import mmap, os, sys
def refused(call, *args):
    try:
        call(*args)
    except OSError:
        return True
    return False
found = [refused(open, sys.argv[1], "w"), refused(mmap.mmap, -1, 4096, 2, 7)]
print(found + [refused(os.sched_setaffinity, 0, os.sched_getaffinity(0))])
"""


@dataclass
class Machine:
    """A machine on which the shop is installed, as far as its units know."""

    units: Path
    root: Path
    calls: Sequence[int]
    port: int

    def environment(self, unit: str) -> dict[str, str]:
        """Return what systemd would put into the environment of a unit."""
        env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "TMPDIR": str(self.root / "tmp")}
        env |= {"CREDENTIALS_DIRECTORY": str(self.root / "secrets")}
        env |= dict(line.split("=", 1) for line in words(self.units / unit, "Environment"))
        for line in (self.units / "shop.env").read_text().splitlines():
            if line and not line.startswith("#"):
                name, value = line.split("=", 1)
                env[name] = value.strip('"').replace("/run/shop", str(self.root / "run"))
        env["SECRETS_DIR"] = env["SECRETS_DIR"].replace("%d", str(self.root / "secrets"))
        # Where this machine differs: no second of a test is for a balancer, and the shop has mails in a folder.
        own = {"PORT": str(self.port), "DRAIN_SECONDS": "0.5", "DATA_DIR": str(self.root / "state")}
        return {**env, **own, "ENV_FILE": os.devnull, "CONFIG_DIR": str(ROOT / "sample_app" / "config")}

    def commands(self, unit: str) -> list[list[str]]:
        """Return the commands of a unit, as systemd would split them, with the programs of this environment."""
        found = []
        for line in words(self.units / unit, "ExecStart"):
            first, *rest = shlex.split(line.replace("%%", "%"))
            found.append([str(Path(sys.executable).parent / Path(first).name), *rest])
        return found

    def caged(self, command: Sequence[str], socket_number: int | None = None) -> list[str]:
        """Return the command under the restrictions of the units."""
        wanted: dict[str, object] = {"unexecutable": True, "calls": self.calls}
        if os.geteuid() == 0:
            wanted["writable"] = [str(self.root), "/dev/shm"]
        if socket_number is not None:
            wanted["socket"] = socket_number
        return [sys.executable, str(CAGE), json.dumps(wanted), *command]


@pytest.fixture(scope="module")
def machine(
    units: Path, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[Machine]:
    """Install the shop: folders, secrets, and a Valkey."""
    root = tmp_path_factory.mktemp("machine")
    for name in ("secrets", "state", "run", "tmp", "backups"):
        (root / name).mkdir(mode=0o700)
    with Valkey() as valkey:
        given = {
            "DATABASE_URL": f"sqlite:///{root / 'state' / 'shop.db'}", "REDIS_URL": valkey.url,
            "SENTRY_DSN": "", "BACKUP_URL": str(root / "backups"),
        }  # fmt: skip
        for line in words(units / "shop-web.service", "LoadCredential"):
            name = line.partition(":")[0]
            (root / "secrets" / name).write_text(given.get(name, secrets.token_urlsafe(32)))
        yield Machine(units, root, allowed(perhaps(pytestconfig)), free_port())


@pytest.mark.deploy
def test_restrictions(machine: Machine, tmp_path: Path) -> None:
    """What the other tests run under refuses to write elsewhere, to make code of data, and to move itself."""
    env = {"PATH": os.environ["PATH"]}
    command = machine.caged([sys.executable, "-c", TRIES, str(tmp_path / "elsewhere")])

    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)

    assert done.stdout.strip() == str([os.geteuid() == 0, True, bool(machine.calls)]), done.stderr


@pytest.fixture(scope="module")
def prepared(machine: Machine) -> Machine:
    """Run the unit of migrations."""
    _run_once(machine, "shop-migrate@.service")
    return machine


@pytest.mark.deploy
def test_web(prepared: Machine) -> None:
    """The web server says that it listens, serves, and is replaced without a refused or lost request."""
    machine, unit = prepared, "shop-web.service"
    notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notified.bind(str(machine.root / "notify"))
    notified.settimeout(30)
    env = {**machine.environment(unit), "NOTIFY_SOCKET": str(machine.root / "notify")}
    (command,) = machine.commands(unit)
    grace = float(words(machine.units / unit, "TimeoutStopSec")[0])
    with ExitStack() as stack:
        stack.enter_context(closing(notified))
        listener = stack.enter_context(closing(socket.create_server((HOST, machine.port), backlog=2048)))
        listener.set_inheritable(True)
        first = _start(stack, machine, command, env, listener)
        assert b"READY=1" in notified.recv(1000)
        statuses: list[int] = []
        end = threading.Event()
        clients = [threading.Thread(target=ask, args=(machine.port, end, statuses)) for _ in range(2)]
        wait_for(lambda: _status(machine.port, "/health/ready") == 200, 30, "readiness")
        for client in clients:
            client.start()
        wait_for(lambda: len(statuses) > 20, 20, "requests")
        began = time.monotonic()
        first.send_signal(signal.SIGTERM)
        code = first.wait(grace)
        took = time.monotonic() - began
        served = len(statuses)
        second = _start(stack, machine, command, env, listener)
        wait_for(lambda: len(statuses) > served + 20, 30, "requests to the successor")
        end.set()
        for client in clients:
            client.join(30)
        second.send_signal(signal.SIGTERM)
        assert second.wait(grace) == 0

    assert code == 0
    assert took < grace
    assert set(statuses) == {200}


@pytest.mark.deploy
def test_worker(prepared: Machine) -> None:
    """The worker does a job that comes through its queues, and ends in time with exit code 0."""
    machine, unit = prepared, "shop-worker.service"
    env = machine.environment(unit)
    with ExitStack() as stack:
        worker = _start(stack, machine, machine.commands(unit)[0], env)
        ping = [str(Path(sys.executable).parent / "flask"), "prod", "jobs", "ping", "--timeout", "30"]
        done = subprocess.run(ping, env=env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        worker.send_signal(signal.SIGTERM)
        code = worker.wait(float(words(machine.units / unit, "TimeoutStopSec")[0]))

    assert done.returncode == 0, done.stdout + done.stderr
    assert "emails in" in done.stdout
    assert code == 0


@pytest.mark.deploy
def test_backup(prepared: Machine) -> None:
    """The nightly backup is made and proved."""
    said = _run_once(prepared, "shop-backup.service")

    assert "is whole" in said
    assert list((prepared.root / "backups").glob("*.backup"))


@pytest.mark.deploy
def test_ready_for_production(prepared: Machine) -> None:
    """`flask prod check` has nothing to say of what these files configure."""
    command = [str(Path(sys.executable).parent / "flask"), "prod", "check"]
    env = prepared.environment("shop-web.service") | {"DRAIN_SECONDS": "5"}
    env["SENTRY_DSN"] = "https://0123456789abcdef@errors.example.com/1"
    env["REDIS_URL"] = f"rediss://:{secrets.token_urlsafe(32)}@cache.internal:6379/0"
    env["DATABASE_URL"] = (
        f"postgresql+psycopg://shop:{secrets.token_urlsafe(32)}@db.internal/shop?sslmode=verify-full"
    )

    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def _run_once(machine: Machine, unit: str) -> str:
    said = ""
    for command in machine.commands(unit):
        env = machine.environment(unit)
        done = subprocess.run(
            machine.caged(command), env=env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        said += done.stdout
    return said


def _start(
    stack: ExitStack, machine: Machine, command: Sequence[str], env: Mapping[str, str],
    listener: socket.socket | None = None,
) -> subprocess.Popen[bytes]:  # fmt: skip
    """Start a service, which is gone at the end of the test whatever happens."""
    number = listener.fileno() if listener is not None else None
    said = stack.enter_context((machine.root / "tmp" / "said").open("ab"))
    process = subprocess.Popen(
        machine.caged(command, number), env=env, cwd=ROOT, pass_fds=() if number is None else (number,),
        stdout=said, stderr=said, start_new_session=True,
    )  # fmt: skip

    def end() -> None:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    stack.callback(end)
    return process


def _status(port: int, path: str) -> int:
    headers = {"Host": "shop.example.com", "X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https"}
    connection = http.client.HTTPConnection(HOST, port, timeout=40)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        response.read()
        return response.status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def ask(port: int, end: threading.Event, statuses: list[int], path: str = "/health/live") -> None:
    """Ask again and again until told to end, and note each status; 0 without an answer."""
    while not end.is_set():
        statuses.append(_status(port, path))
