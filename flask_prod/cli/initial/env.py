"""A `.env` with a generated key, and the line that keeps it out of version control; only when asked for."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

from flask_prod.core.sources import parse_dotenv

from .change import Change, changes_of
from .text import Text

KEY = "SECRET_KEY"
_PRIVATE = 0o600


def plan_env(root: Path) -> Iterator[Change]:
    """Yield the changes that give *root* a SECRET_KEY of its own; none where `.env` has one."""
    text = Text(root / ".env")
    if KEY not in parse_dotenv(text.text):
        text.add_after(len(text.lines), f"{KEY}={secrets.token_urlsafe(32)}")
        yield Change(text.path, text.before, text.result(), mode=_PRIVATE, hidden=True)
    ignored = Text(root / ".gitignore")
    if not {".env", "/.env", "*.env", ".env*"} & {line.strip() for line in ignored.lines}:
        ignored.add_after(len(ignored.lines), ".env")
        yield from changes_of([ignored])
