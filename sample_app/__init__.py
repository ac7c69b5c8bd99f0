"""Harbour Goods, a small shop: the tutorial of flask-prod.

Read it in this order: `create_app` below, extensions.py, catalogue.py, cart.py, checkout.py, jobs.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flask import Flask, render_template, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from .extensions import jwt, prod
from .settings import apply_settings, load_settings


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Build the shop; *config* wins over the environment and the files in config/."""
    settings = load_settings(config or {}, Path(__file__).parent)
    app = Flask(__name__, instance_path=settings.data_dir)
    app.config.from_mapping(config)
    apply_settings(app, settings)

    prod.init_app(app)
    jwt.init_app(app)
    register_pages(app)
    return app


def register_pages(app: Flask) -> None:
    """Join the parts of the shop: the API below /api, the pages people see, and the commands."""
    # Imported here: the modules decorate their views with the extensions above.
    from . import accounts, admin, cart, catalogue, checkout, storefront
    from .mail import euros
    from .prepare import register_commands, require_database
    from .same_origin import require_same_origin
    from .visitor import visitor

    for api in (catalogue.api, cart.api, checkout.api, accounts.api, admin.api):
        app.register_blueprint(api)
        app.before_request_funcs[api.name] = [require_database]
    for pages in (storefront.pages, admin.pages):
        app.register_blueprint(pages)
        app.before_request_funcs[pages.name] = [require_same_origin, require_database]

    app.register_error_handler(HTTPException, show_error)
    app.add_template_filter(euros)
    app.context_processor(lambda: {"visitor": visitor})
    register_commands(app)


def show_error(error: HTTPException) -> HTTPException | Response:
    """Give people a page in the shop's dress; programs get the kit's problem+json."""
    person = "text/html" in request.accept_mimetypes.values() and not request.path.startswith("/api/")
    if not person or error.response is not None:
        return error
    page = Response(
        render_template("error.html", error=error), error.code, content_type="text/html; charset=utf-8"
    )
    page.headers.extend([h for h in error.get_headers(request.environ) if h[0] != "Content-Type"])
    return page
