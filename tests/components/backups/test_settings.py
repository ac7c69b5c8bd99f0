"""What cannot be meant is told at the start."""

from __future__ import annotations

from typing import Any

import pytest

from flask_prod.core.errors import ConfigError
from tests.apps import MakeApp


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"BACKUP_KEEP": "dayly=3"}, "BACKUP_KEEP names dayly"),
        ({"BACKUP_KEEP": "daily=0"}, "BACKUP_KEEP keeps nothing"),
        ({"BACKUP_KEEP": "daily=many"}, "BACKUP_KEEP must be"),
        ({"BACKUP_URL": "ftp://host/folder"}, "BACKUP_URL must be a directory"),
        ({"BACKUP_KEY": "short"}, "BACKUP_KEY must have at least 16 characters"),
        ({"BACKUP_S3_ACCESS_KEY": "x"}, "belong together"),
    ],
)
def test_problem(make_app: MakeApp, config: dict[str, Any], words: str) -> None:
    """Each problem names its key."""
    with pytest.raises(ConfigError, match=words):
        make_app(only=("backups",), **config)
