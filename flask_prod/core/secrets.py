"""What a service itself keeps secret: its settings' and its configuration's, wherever they turn up."""

from __future__ import annotations

import re
from collections.abc import Iterator

from flask import Flask

from .kit import EXTENSION
from .redaction import is_sensitive, is_word
from .values import secret_texts

_ABOUT = re.compile(
    r"_(NAME|PATH|DOMAIN|SAMESITE|TYPE|ALGORITHM|PREFIX|CLAIM|LOCATION|HEADER|FIELD|HASH|SCHEME|TEMPLATE|VIEW|SUBJECT"
    r"|WITHIN|ISSUER|AUDIENCE|(JSON|MESSAGE)_KEY)$"
)
"""How keys end that say something about a secret, and hold none: SESSION_COOKIE_NAME, JWT_ALGORITHM."""


def secrets_of(app: Flask) -> Iterator[str]:
    """Yield every secret of the service itself: of its settings, and of app.config by name."""
    state = app.extensions.get(EXTENSION)
    if app.secret_key:
        yield app.secret_key if isinstance(app.secret_key, str) else app.secret_key.decode(errors="replace")
    yield from (value for key, value in app.config.items() if isinstance(value, str) and _holds_secret(key, value))
    for row in state.settings.rows if state else ():
        yield from secret_texts(row.value)


def _holds_secret(key: str, value: str) -> bool:
    """Tell a secret from a word about one: were `session` taken for one, `db.session` would be starred out."""
    return is_sensitive(key) and _ABOUT.search(key) is None and not is_word(value)
