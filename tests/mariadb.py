"""A real MariaDB for tests: from PATH, else unpacked from Debian's package."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any, Self

import pytest

from tests import debian
from tests.servers import HOST, Server, free_port, wait_for

NAMES = ("mariadbd", "mysqld")
PACKAGE = "mariadb-server-core"
NOT_NEEDED = ("libc6", "libgcc", "gcc", "perl", "libperl", "mariadb-client", "galera", "rsync", "socat", "procps")
"""Beginnings of the names of packages that it wants for clusters and scripts, and does without."""

_TABLES = ("mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql")

_USERS = """
FLUSH PRIVILEGES;
CREATE USER root@'%';
GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;
CREATE USER shop@'%';
GRANT ALL ON `shop%`.* TO shop@'%';
"""
"""An administrator, and the user of a service, who may not see what others do."""


class MariaDB(Server):
    """A server of its own on TCP, without durability; root and shop need no password.

    The program is unpacked below *folder* if need be; *tls* has the files for ca, cert and key.
    """

    def __init__(self, folder: Path, tls: Mapping[str, str] | None = None) -> None:
        super().__init__("mariadb")
        self.args = [f"--ssl-{name}={shutil.copy(path, self.folder)}" for name, path in (tls or {}).items()]
        found = Path(debian.provide(NAMES, PACKAGE, folder, without=NOT_NEEDED))
        root = found.parent
        self._unpacked = found.name == "start"
        self._program = str(root / "usr/sbin/mariadbd") if self._unpacked else str(found)
        self._share = root / "usr/share/mysql" if self._unpacked else Path("/usr/share/mysql")
        libraries = sorted({str(path.parent) for path in root.rglob("*.so*")}) if self._unpacked else []
        self._env = {"PATH": os.environ["PATH"], "LC_ALL": "C", "LD_LIBRARY_PATH": ":".join(libraries)}
        self.port = free_port()

    def url(self, database: str = "shop") -> str:
        """Return the address as users write it."""
        return f"mariadb://shop@{HOST}:{self.port}/{database}"

    def start(self) -> Self:
        """Start, making the system tables first if there are none, and return when it takes queries."""
        data = self.folder / "data"
        if not data.exists():
            self._init(data)
        self.process.launch(
            [*self._command(data), f"--bind-address={HOST}", f"--port={self.port}", "--skip-networking=0",
             f"--socket={data}/s", f"--pid-file={data}/pid", "--skip-name-resolve", *self.args],
            self._env,
        )  # fmt: skip
        wait_for(self._answers, 30, "MariaDB's first answer")
        self.execute("CREATE DATABASE IF NOT EXISTS shop")
        return self

    @contextmanager
    def database(self) -> Iterator[str]:
        """Give the address of an empty database, dropped afterwards."""
        name = f"shop_{token_hex(4)}"
        self.execute(f"CREATE DATABASE {name}")
        yield f"mysql+pymysql://shop@{HOST}:{self.port}/{name}"
        self.execute(f"DROP DATABASE {name}")

    def execute(self, statement: str) -> Any:
        """Run one statement as the administrator and return its first row."""
        import pymysql

        connection = pymysql.connect(
            host=HOST, port=self.port, user="root", connect_timeout=5, ssl_disabled=True, autocommit=True
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchone()

    def _command(self, data: Path) -> list[str]:
        user = ["--user=nobody"] if os.geteuid() == 0 else []  # it refuses to run as root
        return [
            self._program, "--no-defaults", *user, f"--datadir={data}", f"--lc-messages-dir={self._share}",
            "--innodb-buffer-pool-size=8M", "--innodb-flush-log-at-trx-commit=0", "--log-warnings=0",
        ]  # fmt: skip

    def _init(self, data: Path) -> None:
        data.mkdir()
        if os.geteuid() == 0:
            self.folder.chmod(0o755)
            shutil.chown(data, "nobody")
        text = "CREATE DATABASE mysql;\nUSE mysql;\n"
        text += "".join((self._share / name).read_text(errors="replace") for name in _TABLES) + _USERS
        subprocess.run(
            [*self._command(data), "--bootstrap"], input=text.encode(), env=self._env, cwd=self.folder, check=True,
            capture_output=True, timeout=60,
        )  # fmt: skip

    def _answers(self) -> bool:
        import pymysql

        if not self.running:
            raise RuntimeError(f"MariaDB ended with {self.process.wait(1)}:\n{self.process.stderr}")
        with suppress(pymysql.err.OperationalError):
            self.execute("SELECT 1")
            return True
        return False


@contextmanager
def running(config: pytest.Config, tls: Mapping[str, str] | None = None) -> Iterator[MariaDB]:
    """Run one for the tests of a module; they are skipped, with the reason, where there is none to be had."""
    try:
        server = MariaDB(debian.kept(config), tls)
    except debian.Missing as error:
        pytest.skip(str(error))
    with server:
        yield server
