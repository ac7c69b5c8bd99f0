"""What an application imports for rooms that it does not use: nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flask_prod.core.registry import BUILT_IN

BROUGHT = {"typing_extensions", "cryptography", "opentelemetry", "psutil", "cython_runtime", "async_timeout"}
"""What libraries import where they find it installed; the last is redis-py's, before Python 3.11.3."""

FOR_ALL = {"msgspec"}
LIBRARIES = {
    "metrics": {"prometheus_client", "prometheus_flask_exporter"},
    "headers": {"flask_talisman"},
    "cors": {"flask_cors"},
    "cache": {"flask_caching", "cachelib"},
}
"""The libraries of rooms that work without any setting; the others import theirs when there is a use for it."""

OF_ROOMS = set().union(*LIBRARIES.values())


@pytest.fixture(scope="module")
def imported() -> dict[str, set[str]]:
    """Build an application in each way, and tell which libraries each imported."""
    root = Path(__file__).parent.parent
    found = subprocess.run(
        [sys.executable, "-m", "tests.imported"],
        cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    return {name: set(libraries) - BROUGHT for name, libraries in map(json.loads, found.stdout.splitlines())}


def test_import_of_the_kit(imported: dict[str, set[str]]) -> None:
    """`import flask_prod` imports Flask and msgspec."""
    assert imported["nothing"] == FOR_ALL


@pytest.mark.parametrize("room", BUILT_IN)
def test_room_alone(imported: dict[str, set[str]], room: str) -> None:
    """A kit with one room imports that room's library, and none of any other."""
    assert imported[f"only {room}"] == FOR_ALL | LIBRARIES.get(room, set())


def test_kit_without_settings(imported: dict[str, set[str]]) -> None:
    """Without REDIS_URL, DATABASE_URL or SENTRY_DSN there is no redis, rq, sqlalchemy or sentry_sdk."""
    assert imported["default"] == FOR_ALL | OF_ROOMS


def test_kit_of_the_benchmark(imported: dict[str, set[str]]) -> None:
    """Limits need no Flask-Limiter until somebody asks for it; Sentry is imported by the processes that serve."""
    assert imported["configured"] == FOR_ALL | OF_ROOMS


def test_redis_and_database(imported: dict[str, set[str]]) -> None:
    """An address brings in its library and no other: jobs that nobody registered need no rq."""
    assert imported["redis"] == FOR_ALL | OF_ROOMS | {"redis"}
    assert imported["database"] == FOR_ALL | OF_ROOMS | {"sqlalchemy"}
