"""The entry point `backup` of the image: when it makes a backup, and that each is proved."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.servers import wait_for

FLASK = """#!/bin/sh
echo "${*#prod db }" >>"$SAID"
case $* in *--json) echo "$KNOWN" ;; *backup) exit "$CODE" ;; esac
"""
"""In the place of `flask`: notes what it is asked, and knows the backups that it is told."""

YEARLY, MINUTELY = "0 0 1 1 *", "* * * * *"


@dataclass
class Timed:
    """The entry point, with `flask` out of its folder."""

    script: Path
    folder: Path

    @contextmanager
    def running(self, schedule: str, age: timedelta | None, code: int = 0) -> Iterator[subprocess.Popen[bytes]]:
        """Run it where the newest backup is that old, none where *age* is None; backups end with *code*."""
        made = [] if age is None else [{"made_at": (datetime.now(UTC) - age).isoformat()}]
        given = {"SAID": str(self.folder / "said"), "KNOWN": json.dumps(made), "CODE": str(code)}
        path = f"{self.folder}:{os.environ['PATH']}"
        with subprocess.Popen(
            [sys.executable, str(self.script), schedule], env={**os.environ, **given, "PATH": path}
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def said(self) -> list[str]:
        """Return what `flask prod db` was asked, oldest first."""
        return (self.folder / "said").read_text().splitlines()


@pytest.fixture
def timed(rendered: Path, tmp_path: Path) -> Timed:
    (tmp_path / "flask").write_text(FLASK)
    (tmp_path / "flask").chmod(0o755)
    (tmp_path / "said").touch()
    return Timed(rendered / "docker/bin/backup", tmp_path)


@pytest.mark.parametrize(("schedule", "age"), [(YEARLY, None), (MINUTELY, timedelta(minutes=5))])
def test_due(timed: Timed, schedule: str, age: timedelta | None) -> None:
    """The first is made at once, and one whose time has passed; each is restored to prove it."""
    with timed.running(schedule, age) as process:
        wait_for(lambda: len(timed.said()) == 3, 20, "a backup and its proof")
        process.terminate()

        assert process.wait(10) == 0
    assert timed.said() == ["backups --json", "backup", "verify"]


def test_failed(timed: Timed) -> None:
    """What failed is not proved, and is no reason to end or to try again before its next time."""
    with timed.running(YEARLY, None, code=1) as process:
        wait_for(lambda: len(timed.said()) == 2, 20, "the attempt")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
    assert timed.said() == ["backups --json", "backup"]


def test_not_due(timed: Timed) -> None:
    """A backup that is younger than the last time of the schedule is enough."""
    with timed.running(YEARLY, timedelta(0)) as process:
        wait_for(lambda: len(timed.said()) == 1, 20, "the look")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
    assert timed.said() == ["backups --json"]
