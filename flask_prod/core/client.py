"""Flask's test client, reading each answer to its end, so that a test sees what its request left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flask.testing import FlaskClient

READ_AT_ONCE = "flask_prod.read_at_once"
"""Marks a request of a test client, which would otherwise close the answer late or never."""


class EagerClients:
    """Makes test clients like those of *base* whose requests are observed before the call returns.

    Streams of unknown length stay streams: they are observed when the test closes them. It stands where Flask
    looks for a class, so that only who tests imports what tests need, the debugger among it.
    """

    def __init__(self, base: type[FlaskClient] | None) -> None:
        self._base = base
        self._class: type[FlaskClient] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> FlaskClient:
        """Make a client."""
        if self._class is None:
            self._class = _eager(self._base)
        return self._class(*args, **kwargs)


def _eager(base: type[FlaskClient] | None) -> type[FlaskClient]:
    from flask.testing import FlaskClient

    class EagerClient(base or FlaskClient):  # type: ignore[misc]  # the application's own class, known at run time
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.environ_base[READ_AT_ONCE] = True

    return EagerClient
