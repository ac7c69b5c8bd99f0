"""The tiny shop that the commands are run on."""

from __future__ import annotations

from pathlib import Path

import pytest

from .shop import Shop


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """Give a folder with an application, as a user has one."""
    return Shop(tmp_path)
