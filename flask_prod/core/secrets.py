"""What a service itself keeps secret: its settings' and its configuration's, wherever they turn up."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from flask import Flask

from .kit import EXTENSION
from .redaction import is_sensitive
from .values import Secret, SecretUrl


def secrets_of(app: Flask) -> Iterator[str]:
    """Yield every secret of the service itself: of its settings, and of app.config by name."""
    state = app.extensions.get(EXTENSION)
    if app.secret_key:
        yield app.secret_key if isinstance(app.secret_key, str) else app.secret_key.decode(errors="replace")
    yield from (value for key, value in app.config.items() if is_sensitive(key) and isinstance(value, str))
    for row in state.settings.rows if state else ():
        for value in row.value if isinstance(row.value, tuple) else (row.value,):
            if isinstance(value, Secret) and value:
                yield value.reveal()
            if isinstance(value, SecretUrl):
                yield from _credentials(value.reveal())


def _credentials(url: str) -> Iterator[str]:
    """Yield password, or the key in front of a web address; a database's user name is a word like any other."""
    parts = urlsplit(url)
    if parts.password:
        yield parts.password
    elif parts.username and parts.scheme.startswith("http"):
        yield parts.username
