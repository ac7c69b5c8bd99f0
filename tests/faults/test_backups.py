"""A large shop is backed up, proved and restored in time, and a killed backup leaves none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from flask_prod.components.backups.manifest import BackupError
from sample_app import create_app
from tests.components.backups.conftest import KEY, PG_BIN
from tests.sample_app.shop import ENVIRONMENT
from tests.servers import Postgres, wait_for

from .load import SHORT

pytestmark = pytest.mark.faults

ROOT = Path(__file__).parents[2]
ORDERS = 10_000 if SHORT else 100_000
RESTORED_WITHIN = 60.0
"""Seconds for 100,000 orders into an empty database."""

FILL = (
    "INSERT INTO users (email, name, password_hash, is_admin, created_at) "
    "SELECT 'user' || n || '@example.com', 'User ' || n, md5(n::text), false, now() "
    "FROM generate_series(1, :orders / 10) n",
    "INSERT INTO orders (user_id, idempotency_key, address, total_cents, created_at) "
    "SELECT (SELECT min(id) FROM users) + n % (:orders / 10), md5(n::text), n || ' Harbour Street', n % 97, "
    "now() - n * interval '1 minute' FROM generate_series(1, :orders) n",
    "INSERT INTO order_items (order_id, product_id, name, price_cents, quantity) "
    "SELECT o.id, 1 + (o.id + line) % 200, 'Product ' || line, 100, line "
    "FROM orders o, generate_series(1, 3) line",
)


@pytest.fixture(scope="module")
def shop(shared_postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Give the settings of the sample shop with many orders on PostgreSQL."""
    folder = tmp_path_factory.mktemp("shop")
    with shared_postgres.database() as url:
        config = {
            **ENVIRONMENT, "DATABASE_URL": url, "DATA_DIR": str(folder), "BACKUP_PG_BIN": str(PG_BIN),
            "BACKUP_URL": str(folder / "backups"), "BACKUP_KEY": KEY,
        }  # fmt: skip
        app = create_app(config)
        prepared = app.test_cli_runner().invoke(args=["prepare"])
        assert prepared.exit_code == 0, prepared.output
        engine = create_engine(url)
        with engine.begin() as connection:
            for statement in FILL:
                connection.execute(text(statement), {"orders": ORDERS})
        engine.dispose()
        app.extensions["prod"].lifecycle.close()
        yield config


def test_large_shop(shop: dict[str, str], shared_postgres: Postgres) -> None:
    """Back up, verify, restore into an empty database within the minute; every row and checksum is compared."""
    app = create_app(shop)
    backups = app.extensions["prod"].contributions["backups"].handle

    made = backups.run()
    verified = backups.verify()
    with shared_postgres.database() as empty:
        restored = backups.restore("latest", empty)
    app.extensions["prod"].lifecycle.close()

    assert made.tables["public.orders"].rows == ORDERS
    assert made.tables["public.order_items"].rows == 3 * ORDERS
    assert made.revision == ["0002"]
    assert restored.seconds < RESTORED_WITHIN
    print(
        f"{ORDERS} orders, {made.rows} rows, {made.size / 1e6:.1f} MB: backup {made.seconds:.1f} s, "
        f"verify {verified.seconds:.1f} s, restore {restored.seconds:.1f} s"
    )


def test_killed(shop: dict[str, str], tmp_path: Path) -> None:
    """A backup killed by -9 half-way leaves neither a backup, nor a pg_dump, nor a transaction on the server."""
    config = {**shop, "BACKUP_URL": str(tmp_path / "backups"), "BACKUP_PG_BIN": str(_slow_tools(tmp_path))}
    command = [sys.executable, "-m", "flask", "--app", "sample_app", "prod", "db", "backup"]
    process = subprocess.Popen(command, env={**os.environ, **config}, cwd=ROOT)
    try:
        wait_for(lambda: (tmp_path / "started").exists(), 30, "the start of pg_dump")
        time.sleep(0.2)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(10)

    app = create_app(config)
    backups = app.extensions["prod"].contributions["backups"].handle
    assert backups.all() == []
    with pytest.raises(BackupError, match="There is no backup"):
        backups.verify()
    engine = create_engine(shop["DATABASE_URL"])
    left = text("SELECT count(*) FROM pg_stat_activity WHERE application_name IN ('flask-prod backup', 'pg_dump')")
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            wait_for(lambda: connection.scalar(left) == 0, 10, "the end of the sessions of the killed backup")
    finally:
        engine.dispose()
        app.extensions["prod"].lifecycle.close()


def _slow_tools(tmp_path: Path) -> Path:
    """Make a pg_dump that says when it is under way, and takes its time."""
    path = tmp_path / "pg_dump"
    path.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && exec {PG_BIN}/pg_dump --version\n'
        f'{PG_BIN}/pg_dump "$@" | head -c 100000\n'
        f"touch {tmp_path}/started\nwhile echo more; do sleep 0.05; done\n"
    )
    path.chmod(0o755)
    return tmp_path
