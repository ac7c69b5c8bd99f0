"""Flask's test client, reading each answer to its end, so that a test sees what its request left behind."""

from __future__ import annotations

from typing import Any

from flask.testing import FlaskClient

READ_AT_ONCE = "flask_prod.read_at_once"
"""Marks a request of a test client, which would otherwise close the answer late or never."""


def eager(base: type[FlaskClient] | None) -> type[FlaskClient]:
    """Return a test client class like *base* whose requests are observed before the call returns.

    Streams of unknown length stay streams: they are observed when the test closes them.
    """

    class EagerClient(base or FlaskClient):  # type: ignore[misc]  # the application's own class, known at run time
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.environ_base[READ_AT_ONCE] = True

    return EagerClient
