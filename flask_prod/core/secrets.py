"""What a service itself keeps secret: its settings' and its configuration's, wherever they turn up."""

from __future__ import annotations

from collections.abc import Iterator

from flask import Flask

from .kit import EXTENSION
from .redaction import is_sensitive
from .values import secret_texts


def secrets_of(app: Flask) -> Iterator[str]:
    """Yield every secret of the service itself: of its settings, and of app.config by name."""
    state = app.extensions.get(EXTENSION)
    if app.secret_key:
        yield app.secret_key if isinstance(app.secret_key, str) else app.secret_key.decode(errors="replace")
    yield from (value for key, value in app.config.items() if is_sensitive(key) and isinstance(value, str))
    for row in state.settings.rows if state else ():
        yield from secret_texts(row.value)
