"""What the processes of a host have told."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest

from flask_prod.components.alerts.board import Board
from flask_prod.components.alerts.rate import Episode


def test_shared(tmp_path: Path) -> None:
    """What one process writes, the next one reads; an ended episode is gone."""
    first, second = Board(lambda: tmp_path), Board(lambda: tmp_path)
    with first.open(100) as episodes:
        episodes["rate"] = Episode(began=90, told=100)
    with second.open(101) as episodes:
        assert episodes["rate"].open
        episodes["rate"].began = 0

    with first.open(102) as episodes:
        assert episodes == {}


def test_without_a_folder() -> None:
    """Without a run directory a process remembers by itself."""
    board = Board(lambda: None)
    with board.open(100) as episodes:
        episodes["rate"] = Episode(began=90, told=100)

    with board.open(101) as episodes:
        assert episodes["rate"].open


def test_damaged(tmp_path: Path) -> None:
    """A file that a dying process left half written is begun anew."""
    (tmp_path / "alerts.json").write_bytes(b'{"rate": {"beg')
    board = Board(lambda: tmp_path)

    with board.open(100) as episodes:
        assert episodes == {}
        episodes["rate"] = Episode(began=90, told=100)
    with board.open(101) as episodes:
        assert list(episodes) == ["rate"]


@pytest.mark.alone
def test_nobody_waits(tmp_path: Path) -> None:
    """A process that hangs with the file locked holds nobody up for longer than a moment."""
    file = os.open(tmp_path / "alerts.json", os.O_CREAT | os.O_RDWR)
    fcntl.flock(file, fcntl.LOCK_EX)
    began = time.monotonic()
    with Board(lambda: tmp_path).open(100) as episodes:
        episodes["rate"] = Episode(began=90, told=100)
    os.close(file)

    assert time.monotonic() - began < 0.3


def test_link_is_not_followed(tmp_path: Path) -> None:
    """A link in the directory is not written through."""
    target = tmp_path / "target"
    target.write_text("untouched")
    (tmp_path / "alerts.json").symlink_to(target)
    with Board(lambda: tmp_path).open(100) as episodes:
        episodes["rate"] = Episode(began=90, told=100)

    assert target.read_text() == "untouched"
