"""Back up and restore PostgreSQL by its own pg_dump and pg_restore, of one moment, without a password in sight."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from flask_prod.core.errors import MissingExtra

from .manifest import BackupError, Sums
from .stream import CHUNK
from .tools import find_tool

LOCK_WAIT = 60_000
"""Milliseconds that a dump waits for tables that a migration holds."""

_VARIABLES = {
    "host": "PGHOST", "hostaddr": "PGHOSTADDR", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD",
    "dbname": "PGDATABASE", "passfile": "PGPASSFILE", "sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT", "sslkey": "PGSSLKEY", "sslcrl": "PGSSLCRL", "gssencmode": "PGGSSENCMODE",
    "channel_binding": "PGCHANNELBINDING", "connect_timeout": "PGCONNECT_TIMEOUT", "service": "PGSERVICE",
}  # fmt: skip
_KEPT = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "PGPASSFILE", "TMPDIR", "TZ")

_TABLES = """
    SELECT c.oid, n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                      AND d.deptype = 'e')
    ORDER BY n.nspname, c.relname
"""
_SAME_TEXT = """
    SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL lock_timeout = 0;
    SET LOCAL row_security = off; SET LOCAL search_path = pg_catalog; SET LOCAL timezone = 'UTC';
    SET LOCAL datestyle = 'ISO'; SET LOCAL intervalstyle = 'postgres'; SET LOCAL bytea_output = 'hex';
    SET LOCAL extra_float_digits = 1
"""
"""Two servers show the same row as the same text, whatever their settings."""


@dataclass(frozen=True)
class Server:
    """A database as libpq's keywords name it, password included."""

    params: Mapping[str, str] = field(repr=False)

    @property
    def database(self) -> str:
        """The name of the database."""
        return self.params.get("dbname", "")

    def named(self, database: str) -> Server:
        """Return another database of the same server."""
        return Server({**self.params, "dbname": database})

    def connect(self, **options: Any) -> Any:
        """Open a connection; BackupError without a password when the server does not let us in."""
        import psycopg

        try:
            return psycopg.connect(**self.params, **options)  # type: ignore[arg-type]  # libpq takes all as text
        except psycopg.OperationalError as error:
            said = str(error).replace(self.params.get("password") or "\0", "***").partition("\n")[0]
            raise BackupError(f"The database {self.database} cannot be reached: {said}") from error

    def environment(self) -> dict[str, str]:
        """Return the variables of a child process: nobody sees them in the list of processes."""
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        given = {_VARIABLES[key]: str(value) for key, value in self.params.items() if key in _VARIABLES}
        return {**kept, "LC_ALL": "C", **given}


def server_of(url: Any, engine: Any = None) -> Server:
    """Return the database of an SQLAlchemy address; an engine knows more of it, such as certificates."""
    try:
        import psycopg  # noqa: F401  # whether it is there
    except ImportError as error:
        raise MissingExtra("backups", "psycopg", "postgres") from error
    params = {key: str(value) for key, value in url.query.items() if key in _VARIABLES}
    given = {
        "host": url.host,
        "port": url.port,
        "user": url.username,
        "password": url.password,
        "dbname": url.database,
    }
    params |= {key: str(value) for key, value in given.items() if value is not None}
    if engine is not None and engine.dialect.driver == "psycopg":
        with _reached(url), engine.connect() as connection:
            info = connection.connection.dbapi_connection.info
            params |= {key: value for key, value in info.get_parameters().items() if key in _VARIABLES}
            params |= {"host": info.host, "port": str(info.port), "password": info.password or ""}
    params.setdefault("connect_timeout", "10")
    return Server({key: value for key, value in params.items() if value})


@contextmanager
def _reached(url: Any) -> Iterator[None]:
    """Say in a sentence that the service's own engine gets no connection."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except SQLAlchemyError as error:
        said = str(getattr(error, "orig", None) or error).replace(url.password or "\0", "***")
        raise BackupError(f"The database {url.database} cannot be reached: {said.splitlines()[0]}") from error


@contextmanager
def _readable(server: Server) -> Iterator[None]:
    """Say in a sentence what of the database cannot be read."""
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        said = str(error).partition("\n")[0]
        raise BackupError(
            f"The database {server.database} cannot be read: {said}. A backup needs all of it: its user must be "
            "allowed to read every table."
        ) from error


@dataclass(frozen=True)
class Snapshot:
    """One moment of a database, as long as its transaction lasts."""

    identifier: str
    major: int
    version: str
    revision: list[str]
    sums: dict[str, Sums]


@contextmanager
def snapshot(server: Server) -> Iterator[Snapshot]:
    """Hold one moment of the database; counts and checksums are of the very rows that the dump will see."""
    with server.connect(application_name="flask-prod backup") as connection:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        identifier = connection.execute("SELECT pg_export_snapshot()").fetchone()[0]
        number = connection.info.server_version
        with _readable(server):
            sums, revision = sums_of(connection), _revision(connection)
        version = connection.info.parameter_status("server_version") or ""
        yield Snapshot(identifier, number // 10_000, version, revision, sums)
        connection.rollback()


def sums_of(connection: Any) -> dict[str, Sums]:
    """Return rows and checksum of each table, counted by the server."""
    from psycopg import sql

    connection.execute(_SAME_TEXT)
    found = {}
    for _, schema, table in connection.execute(_TABLES).fetchall():
        query = sql.SQL(
            "SELECT count(*), coalesce(sum(('x' || encode(substr(sha256(convert_to("
            "ROW(the_row.*)::text, 'UTF8')), 1, 8), 'hex'))::bit(64)::bigint::numeric), 0) FROM ONLY {} AS the_row"
        ).format(sql.Identifier(schema, table))
        rows, total = connection.execute(query).fetchone()
        found[f"{schema}.{table}"] = Sums(rows, format(int(total) % 2**64, "016x"))
    return found


def _revision(connection: Any) -> list[str]:
    for _, schema, table in connection.execute(_TABLES).fetchall():
        if table == "alembic_version":
            from psycopg import sql

            query = sql.SQL("SELECT version_num FROM {}").format(sql.Identifier(schema, table))
            return sorted(row[0] for row in connection.execute(query).fetchall())
    return []


def dumped(server: Server, moment: Snapshot, pg_bin: str) -> Iterator[bytes]:
    """Yield pg_dump's custom format, uncompressed; BackupError with what it said when it fails."""
    tool = find_tool("pg_dump", pg_bin, moment.major)
    command = [
        str(tool), "--format=custom", "--compress=0", "--no-password", f"--snapshot={moment.identifier}",
        f"--lock-wait-timeout={LOCK_WAIT}",
    ]  # fmt: skip
    with _started(command, server, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while data := process.stdout.read(CHUNK):
            yield data
        _finish(process, "pg_dump")


def restored(chunks: Iterable[bytes], server: Server, pg_bin: str, *, clean: bool, least: int) -> None:
    """Have pg_restore write all in one transaction: when it fails, the database is as before."""
    tool = find_tool("pg_restore", pg_bin, least)
    name = server.database.replace("\\", "\\\\").replace("'", "\\'")
    command = [
        str(tool), "--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges", "--no-password",
        f"--dbname=dbname='{name}'", *(("--clean", "--if-exists") if clean else ()),
    ]  # fmt: skip
    with _started(command, server, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # pg_restore has given up, and says below why
            for data in chunks:
                process.stdin.write(data)
        with suppress(BrokenPipeError):
            process.stdin.close()
        _finish(process, "pg_restore")


def is_empty(server: Server) -> bool:
    """Tell whether the database has no table of anybody's."""
    with server.connect() as connection:
        return connection.execute(_TABLES).fetchone() is None


@contextmanager
def scratch(server: Server) -> Iterator[Server]:
    """Make an empty database on the same server, and drop it afterwards."""
    import psycopg
    from psycopg import sql

    name = f"flask_prod_verify_{secrets.token_hex(6)}"
    try:
        with server.connect(autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
    except psycopg.Error as error:
        said = str(error).partition("\n")[0]
        raise BackupError(
            f"No scratch database could be made: {said}. Give the user CREATEDB, or pass "
            "--scratch URL of another server."
        ) from error
    try:
        yield server.named(name)
    finally:
        with server.connect(autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def _started(command: list[str], server: Server, **pipes: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a tool of PostgreSQL; it ends with the block, however that ends."""
    process = subprocess.Popen(command, env=server.environment(), stderr=subprocess.PIPE, **pipes)  # noqa: S603
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


def _finish(process: subprocess.Popen[bytes], name: str) -> None:
    said = process.stderr.read().decode(errors="replace") if process.stderr is not None else ""
    if process.wait() != 0:
        lines = [line for line in said.splitlines() if line.strip()]
        raise BackupError(f"{name} failed: {' '.join(lines[:3]) or f'exit status {process.returncode}'}")
