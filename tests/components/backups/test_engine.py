"""Backups of SQLite and PostgreSQL: there and back, and nothing that only looks like one."""

from __future__ import annotations

import os
import shutil
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from flask_prod.components.backups import manifest
from flask_prod.components.backups.engine import Backups
from flask_prod.components.backups.manifest import BackupError, Sums
from flask_prod.core.component import Event
from tests.servers import Postgres

from .conftest import KEY, PG_BIN, Build, execute, rows


def test_there_and_back(build: Build, url: str, empty: str) -> None:
    """A backup verifies, lists what it holds, and gives it back into an empty database."""
    backups = build(url)

    made = backups.run()

    assert backups.all() == [made]
    assert {name.removeprefix("public."): table.rows for name, table in made.tables.items()} == {
        "items": 2, "Order lines": 3, "unused": 0, "alembic_version": 1,
    }  # fmt: skip
    assert made.revision == ["0002"]
    assert not made.encrypted
    assert backups.verify().manifest == made
    backups.restore("latest", empty)
    for table in ("items", '"Order lines"'):
        assert rows(empty, table) == rows(url, table)


def test_encrypted(build: Build, url: str, empty: str, tmp_path: Path) -> None:
    """With a key nothing of the contents can be read, the same key restores it, and another one is told."""
    backups = build(url, BACKUP_KEY=KEY)
    made = backups.run()

    stored = (tmp_path / "backups" / f"{made.name}.backup").read_bytes()
    assert made.encrypted
    assert stored.startswith(b"FPB1")
    assert KEY not in (tmp_path / "backups" / f"{made.name}.json").read_text()
    backups.restore("latest", empty)
    assert rows(empty, "items") == rows(url, "items")
    with pytest.raises(BackupError, match="BACKUP_KEY is not the one") as caught:
        build(url, BACKUP_KEY="another key, as long").verify()
    assert "another key" not in str(caught.value)
    with pytest.raises(BackupError, match="set the BACKUP_KEY"):
        build(url).verify()


def test_unsigned_with_a_key(build: Build, sqlite_url: str) -> None:
    """Where there is a key, a backup that somebody put there without one is not restored."""
    build(sqlite_url).run()

    with pytest.raises(BackupError, match="neither encrypted nor signed"):
        build(sqlite_url, BACKUP_KEY=KEY).verify()


def test_database_with_tables_is_refused(build: Build, url: str, empty: str) -> None:
    """What is not empty is overwritten only by word; then it holds what the backup holds."""
    backups = build(url)
    backups.run()
    execute(empty, "CREATE TABLE items (id INTEGER)", "INSERT INTO items VALUES (99)")
    execute(empty, "CREATE TABLE others (id INTEGER)")

    with pytest.raises(BackupError, match="pass --overwrite"):
        backups.restore("latest", empty)
    assert rows(empty, "items") == [(99,)]
    backups.restore("latest", empty, overwrite=True)
    assert rows(empty, "items") == rows(url, "items")


def test_into_itself(build: Build, url: str) -> None:
    """`self` is the service's own database: what was lost since the backup is there again."""
    backups = build(url)
    backups.run()
    before = rows(url, '"Order lines"')
    execute(url, 'DELETE FROM "Order lines"')

    backups.restore("latest", "self", overwrite=True)

    assert rows(url, '"Order lines"') == before


def test_writers_go_on(build: Build, url: str) -> None:
    """While writers move money between rows, every backup is of one moment: sums and total fit."""
    execute(url, "CREATE TABLE accounts (id INTEGER PRIMARY KEY, cents INTEGER)",
            "INSERT INTO accounts VALUES (1, 1000), (2, 1000)")  # fmt: skip
    backups = build(url)
    stop = threading.Event()
    moved: list[int] = []

    def move() -> None:
        engine = create_engine(url)
        while not stop.is_set():
            with engine.begin() as connection:
                connection.execute(text("UPDATE accounts SET cents = cents - 1 WHERE id = 1"))
                connection.execute(text("UPDATE accounts SET cents = cents + 1 WHERE id = 2"))
            moved.append(1)
        engine.dispose()

    writers = [threading.Thread(target=move) for _ in range(2 if url.startswith("postgres") else 1)]
    for writer in writers:
        writer.start()
    try:
        made = [backups.run() for _ in range(3)]
    finally:
        stop.set()
        for writer in writers:
            writer.join()

    assert moved
    for one in made:
        backups.verify(one.name)
    target = build(url).settings.url + "/copy.db"
    if url.startswith("sqlite"):
        backups.restore(made[0].name, f"sqlite:///{target}")
        assert sum(cents for _, cents in rows(f"sqlite:///{target}", "accounts")) == 2000


@pytest.fixture(scope="module")
def flippable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder for a backup that is damaged again and again."""
    return tmp_path_factory.mktemp("flipped")


@pytest.mark.parametrize("suffix", [".backup", ".json"])
def test_flipped_byte(build: Build, sqlite_url: str, flippable: Path, suffix: str) -> None:
    """A single changed byte, wherever it is, in the data or in the manifest, is found."""
    backups = build(sqlite_url, BACKUP_URL=str(flippable / suffix[1:]))
    made = backups.run()
    path = Path(backups.settings.url, made.name + suffix)
    whole = path.read_bytes()

    @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, len(whole) - 1), st.integers(1, 255))
    def flip(place: int, mask: int) -> None:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ mask]) + whole[place + 1 :])
        with pytest.raises(BackupError, match=r"damaged|format|no backup"):
            backups.verify(made.name)

    flip()
    path.write_bytes(whole[:-1])
    with pytest.raises(BackupError, match="damaged"):
        backups.verify(made.name)
    path.write_bytes(whole)
    backups.verify(made.name)


def test_damaged_in_postgres(build: Build, postgres_url: str, shared_postgres: Postgres, tmp_path: Path) -> None:
    """A flipped byte of a PostgreSQL backup is found before anything is restored."""
    execute(postgres_url, "CREATE TABLE items (id INTEGER)", "INSERT INTO items SELECT generate_series(1, 5000)")
    backups = build(postgres_url)
    made = backups.run()
    path = tmp_path / "backups" / f"{made.name}.backup"
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)

    with shared_postgres.database() as target:
        with pytest.raises(BackupError, match="checksum does not fit"):
            backups.restore(made.name, target)
        execute(target, "CREATE TABLE items (id INTEGER)")


def test_missing_rows_are_found(build: Build, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`verify` compares what comes out with what was counted: a dump that lost rows is not whole."""
    backups = build(url)
    made = backups.run()
    more = {name: Sums(sums.rows + 1, sums.checksum) for name, sums in made.tables.items()}
    monkeypatch.setattr(manifest, "read", lambda *_: msgspec.structs.replace(made, tables=more))

    with pytest.raises(BackupError, match="items has 2 rows, not 3"):
        backups.verify()


def test_scratch_database_goes_away(build: Build, postgres_url: str, shared_postgres: Postgres) -> None:
    """Whatever comes of a verification, no scratch database stays."""
    execute(postgres_url, "CREATE TABLE items (id INTEGER)")
    backups = build(postgres_url)
    backups.run()
    backups.verify(scratch=shared_postgres.url())

    engine = create_engine(postgres_url)
    with engine.connect() as connection:
        names = connection.scalars(
            text("SELECT datname FROM pg_database WHERE datname LIKE 'flask_prod_verify%'")
        ).all()
    engine.dispose()
    assert names == []


def test_retention(build: Build, sqlite_url: str, tmp_path: Path) -> None:
    """A successful backup removes what BACKUP_KEEP lets go, with both files; backups of others stay."""
    other = build(sqlite_url, SERVICE_NAME="other").run()
    backups = build(sqlite_url, BACKUP_KEEP="last=2")

    made = [backups.run() for _ in range(1)]
    _age(backups, tmp_path, made[0].name, days=3)
    second = backups.run()
    _age(backups, tmp_path, second.name, days=1)
    third = backups.run()

    assert [one.name for one in backups.all()] == [third.name, second.name]
    left = {name.rpartition(".")[0] for name in os.listdir(tmp_path / "backups")}
    assert left == {second.name, third.name, other.name}


def test_retention_that_fails(build: Build, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backup is good although an older one could not be removed; that is told."""
    backups = build(sqlite_url, BACKUP_KEEP="last=1")
    events: list[Event] = []
    monkeypatch.setattr(backups._kit, "emit", events.append)
    monkeypatch.setattr("flask_prod.components.backups.engine.kept", lambda *_: 1 / 0)

    made = backups.run()

    assert backups.all() == [made]
    assert [event.name for event in events] == ["prod.backup.kept", "prod.backup.made"]


def _age(backups: Backups, tmp_path: Path, name: str, days: int) -> None:
    """Make a backup older than it is."""
    path = tmp_path / "backups" / f"{name}.json"
    found = manifest.read(name, path.read_bytes())
    old = msgspec.structs.replace(found, made_at=datetime.now(UTC).replace(microsecond=0) - timedelta(days=days))
    path.write_bytes(manifest.written(old, None))


def test_failure_stores_and_removes_nothing(
    build: Build, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When pg_dump fails half-way its words are told, nothing is stored, no older backup goes."""
    execute(postgres_url, "CREATE TABLE items (id INTEGER)")
    build(postgres_url).run()
    tools = _tools(tmp_path, 'echo half; echo "pg_dump: error: no luck" >&2; exit 1')
    backups = build(postgres_url, BACKUP_PG_BIN=str(tools), BACKUP_KEEP="last=1")
    events: list[Event] = []
    monkeypatch.setattr(backups._kit, "emit", events.append)

    with pytest.raises(BackupError, match="pg_dump failed: pg_dump: error: no luck"):
        backups.run()

    assert len(os.listdir(tmp_path / "backups")) == 2
    assert [event.name for event in events] == ["prod.backup.failed"]


def _tools(tmp_path: Path, script: str, version: int = 99) -> Path:
    """Make a pg_dump that runs a script of the shell."""
    folder = tmp_path / f"tools{version}"
    folder.mkdir()
    for name in ("pg_dump", "pg_restore"):
        path = folder / name
        asked = f'[ "$1" = --version ] && echo "{name} (PostgreSQL) {version}.1" && exit'
        path.write_text(f"#!/bin/sh\n{asked}\n{script}\n")
        path.chmod(0o755)
    return folder


def test_tools_missing_or_too_old(build: Build, postgres_url: str, tmp_path: Path) -> None:
    """Without client programs, or with older ones than the server, the error says what to install."""
    with pytest.raises(BackupError, match=r"no pg_dump in BACKUP_PG_BIN .* postgresql-client-\d\d"):
        build(postgres_url, BACKUP_PG_BIN=str(tmp_path)).run()
    with pytest.raises(BackupError, match=r"is of PostgreSQL 9, the server of \d\d"):
        build(postgres_url, BACKUP_PG_BIN=str(_tools(tmp_path, "", 9))).run()


def test_password_is_not_an_argument(build: Build, postgres_url: str, tmp_path: Path) -> None:
    """The password goes to pg_dump by its environment, never by the command line that every user can read."""
    seen = tmp_path / "seen"
    real = PG_BIN / "pg_dump"
    tools = _tools(tmp_path, f'echo "$@" > {seen}; [ "$PGPASSWORD" = s3cret-word ] || exit 3; exec {real} "$@"')
    url = postgres_url.replace("postgres@", "postgres:s3cret-word@")

    build(url, BACKUP_PG_BIN=str(tools)).run()

    assert "--snapshot=" in seen.read_text()
    assert "s3cret" not in seen.read_text()


def test_unreachable_database(build: Build) -> None:
    """A database that is away is told without its password."""
    with pytest.raises(Exception, match=r"refused|reach|Connection") as caught:
        build("postgresql://shop:top-secret@127.0.0.1:1/shop").run()
    assert "top-secret" not in str(caught.value)


def test_killed_backup(build: Build, sqlite_url: str, tmp_path: Path) -> None:
    """What killed backups leave is no backup, and a day later it is gone."""
    backups = build(sqlite_url)
    made = backups.run()
    folder = tmp_path / "backups"
    orphan = folder / "shop-20260101-000000-abcd.backup"
    orphan.write_bytes(b"data without a manifest")
    draft = folder / ".shop-20260101-000000-abcd.backup.1234.part"
    draft.write_bytes(b"half")
    fresh = folder / f"shop-{datetime.now(UTC):%Y%m%d-%H%M%S}-beef.backup"
    fresh.write_bytes(b"somebody is at it")
    os.utime(draft, (time.time() - 90_000,) * 2)

    assert backups.all() == [made]
    assert backups.damaged() == []
    backups.run()
    assert (orphan.exists(), draft.exists(), fresh.exists()) == (False, False, True)


def test_private_files(build: Build, sqlite_url: str, tmp_path: Path) -> None:
    """Backups can be read by their owner only."""
    build(sqlite_url).run()

    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "backups").iterdir()} == {0o600}
    assert (tmp_path / "backups").stat().st_mode & 0o777 == 0o700


def test_wrong_places(build: Build, sqlite_url: str, postgres_url: str, tmp_path: Path) -> None:
    """No BACKUP_URL, a directory that cannot be, another kind of database: each is told."""
    with pytest.raises(BackupError, match="set BACKUP_URL"):
        build(sqlite_url, BACKUP_URL="").run()
    (tmp_path / "file").write_text("")
    with pytest.raises(BackupError, match="cannot be"):
        build(sqlite_url, BACKUP_URL=str(tmp_path / "file" / "below")).run()
    backups = build(sqlite_url)
    with pytest.raises(BackupError, match="There is no backup of shop"):
        backups.verify()
    backups.run()
    with pytest.raises(BackupError, match="A backup of sqlite cannot be restored into postgresql"):
        backups.restore("latest", postgres_url)
    with pytest.raises(BackupError, match="no backup 'nothing'"):
        backups.restore("nothing", "self")
    with pytest.raises(BackupError, match="in memory"):
        build("sqlite://").run()
    shutil.rmtree(tmp_path / "backups")


def test_check(build: Build, sqlite_url: str, tmp_path: Path) -> None:
    """The check warns without a backup and with an old one, and looks at the store only then."""
    backups = build(sqlite_url)
    fresh = build(sqlite_url)
    (check,) = fresh._kit.contributions["backups"].checks

    before = check.probe()
    assert before is not None
    assert (before.status, check.critical) == ("warn", False)
    made = backups.run()
    (check,) = build(sqlite_url)._kit.contributions["backups"].checks
    seen = check.probe()
    assert seen is not None
    assert seen.status == "ok"
    _age(backups, tmp_path, made.name, days=2)
    assert check.probe().status == "ok"  # type: ignore[union-attr]  # it knows of a fresh one, and asks nobody
    (check,) = build(sqlite_url)._kit.contributions["backups"].checks
    old = check.probe()
    assert old is not None
    assert (old.status, old.detail) == ("warn", "the last backup is 48 hours old: see `flask prod db backups`")
    assert build(sqlite_url, BACKUP_URL="")._kit.contributions["backups"].checks == ()
