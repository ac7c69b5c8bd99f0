"""The metrics directory: which files go, which stay, and what happens where nothing can be written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flask_prod.server import multiprocess

DEAD = 999_999


def test_sweep_keeps_the_living(tmp_path: Path) -> None:
    """Files of living processes stay, those of dead ones and of an earlier process with the same id go."""
    mine, dead, earlier = (
        tmp_path / f"{name}.db" for name in (f"counter_{os.getpid()}", f"counter_{DEAD}", "sum_1")
    )
    for file in (mine, dead, earlier):
        file.write_bytes(b"")
    os.utime(earlier, (1, 1))
    (tmp_path / "notes.txt").write_text("not ours")

    multiprocess.sweep(tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == [mine.name, "notes.txt"]


def test_dead_process_loses_its_live_gauges_only(tmp_path: Path) -> None:
    """Counters of a dead process go on counting, or totals would shrink."""
    for name in ("gauge_livesum", "gauge_liveall", "gauge_all", "counter"):
        (tmp_path / f"{name}_{DEAD}.db").write_bytes(b"")
    (tmp_path / f"gauge_livesum_1{DEAD}.db").write_bytes(b"")

    multiprocess.mark_dead(tmp_path, DEAD)

    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [f"counter_{DEAD}.db", f"gauge_all_{DEAD}.db", f"gauge_livesum_1{DEAD}.db"]


def test_own_id_of_an_earlier_life_starts_at_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container process ids repeat: a volume's file with our id is not taken over."""
    old = tmp_path / f"counter_{os.getpid()}.db"
    old.write_bytes(b"")
    os.utime(old, (1, 1))
    monkeypatch.setenv(multiprocess.VARIABLE, str(tmp_path))

    assert multiprocess.prepare() == tmp_path
    assert not old.exists()


def test_nowhere_to_write_means_one_process(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With no place for a directory there is one warning with the remedy, and the variable is unset."""
    monkeypatch.setenv(multiprocess.VARIABLE, "/dev/null/metrics")
    monkeypatch.setattr(multiprocess, "SHARED_MEMORY", Path("/dev/null"))
    monkeypatch.setattr("tempfile.tempdir", "/dev/null")

    assert multiprocess.prepare() is None
    assert multiprocess.current() is None
    assert len(caplog.records) == 1
    assert "Mount a writable /dev/shm or /tmp" in caplog.text


def test_directory_in_use_is_not_abandoned(tmp_path: Path) -> None:
    """Another service's directory stays while it runs, and goes once it was killed."""
    code = (
        "import sys, pathlib, tempfile; from flask_prod.server import multiprocess as m\n"
        "m.SHARED_MEMORY = pathlib.Path(sys.argv[1]); print(m.prepare(), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        folder = Path(other.stdout.readline().strip())
        assert folder.parent == tmp_path
        multiprocess._remove_abandoned(tmp_path)
        assert folder.is_dir()
        other.kill()

    multiprocess._remove_abandoned(tmp_path)
    assert not folder.exists()
