"""What the `make_app` and `gunicorn` fixtures are called as; import these types in tests."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

from flask import Flask

from flask_prod import ProdKit
from tests.servers import FaultProxy, Gunicorn, Valkey


class MakeApp(Protocol):
    """Builds an application called shop with a kit; ENVIRONMENT is test, *config* goes into app.config."""

    def __call__(
        self,
        *,
        kit: ProdKit | None = None,
        only: Collection[str] | None = None,
        without: Collection[str] = (),
        **config: Any,
    ) -> Flask:
        """Build one."""


class StartGunicorn(Protocol):
    """Starts a real gunicorn that ends with the test; arguments are those of `servers.Gunicorn`."""

    def __call__(self, app: str = "app:create_app()", **options: Any) -> Gunicorn:
        """Start one."""


class StartValkey(Protocol):
    """Starts a Valkey that ends with the test; arguments are those of `servers.Valkey`."""

    def __call__(self, **options: Any) -> Valkey:
        """Start one."""


class StartFaultProxy(Protocol):
    """Starts a misbehaving proxy in front of a local port; it ends with the test."""

    def __call__(self, upstream: int) -> FaultProxy:
        """Start one."""
