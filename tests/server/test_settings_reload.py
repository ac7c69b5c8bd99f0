"""Settings that change while real gunicorn serves: every worker, all or nothing, and no request fails."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.server.reloading import Reloading


@pytest.fixture(scope="module")
def reloading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reloading]:
    """Run one service for the whole module."""
    found = Reloading(tmp_path_factory.mktemp("reloading"))
    with found.server:
        yield found


def test_under_load(reloading: Reloading) -> None:
    """Valid and broken files in turn: no request fails, workers agree within 2 s, broken files change nothing."""
    assert reloading.run(6) == []


def test_command(reloading: Reloading) -> None:
    """`flask prod reload` lets the service look at once, and tells what changed, what waits, or what is wrong."""

    def command() -> str:
        done = subprocess.run(
            [sys.executable, "-m", "flask", "--app", "app", "prod", "reload"],
            cwd=reloading.server.folder, env={**os.environ, **reloading.server.env}, capture_output=True,
            text=True, timeout=60,
        )  # fmt: skip
        return done.stdout + done.stderr

    reloading.write('RATE_LIMIT_PUBLIC = 500000\nHEALTH_TOKEN = "hunter2-hunter2"\n')
    # The service may have been quicker than the command, which starts an application of its own.
    assert "changed  RATE_LIMIT_PUBLIC" in (told := command()) or "Nothing has changed." in told
    assert "hunter2" not in told + reloading.server.stdout
    assert "HEALTH_TOKEN none -> secret:" in told + reloading.server.stdout
