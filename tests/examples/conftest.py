"""Documented examples, each run twice: declared before any application exists, and inside a factory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import pytest
from flask import Blueprint
from flask.sansio.scaffold import Scaffold
from flask.testing import FlaskClient

from flask_prod import ProdKit
from tests.apps import MakeApp

Declare: TypeAlias = Callable[[ProdKit, Scaffold], object]


class Example(Protocol):
    """Runs what an example declares, in an application with every room; *config* goes into app.config."""

    def __call__(self, declare: Declare, **config: Any) -> FlaskClient:
        """Build the application and return its client."""


@pytest.fixture(params=["module", "factory"])
def example(request: pytest.FixtureRequest, make_app: MakeApp) -> Example:
    """Give a function that builds an application around an example."""

    def in_a_module(declare: Declare, **config: Any) -> FlaskClient:
        prod, pages = ProdKit(), Blueprint("pages", __name__)
        declare(prod, pages)
        app = make_app(kit=prod, **config)
        app.register_blueprint(pages)
        return app.test_client()

    def in_a_factory(declare: Declare, **config: Any) -> FlaskClient:
        prod = ProdKit()
        app = make_app(kit=prod, **config)
        declare(prod, app)
        return app.test_client()

    return in_a_module if request.param == "module" else in_a_factory
