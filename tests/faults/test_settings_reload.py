"""Fifty changes of the settings under load, valid and broken in turn."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.load import SHORT
from tests.server.reloading import Reloading

pytestmark = pytest.mark.faults


def test_fifty_times(tmp_path: Path) -> None:
    """No request fails, all workers have the same settings within 2 s, a broken file changes nothing."""
    reloading = Reloading(tmp_path)
    with reloading.server:
        wrong = reloading.run(8 if SHORT else 50)
    print(f"agreed after {max(reloading.seconds):.2f} s at most, {len(reloading.seconds)} changes")
    assert wrong == []
