"""The face of flask-prod: one extension, typed handles, and short cuts for every day."""

from __future__ import annotations

from flask_prod.core.kit import Kit


class ProdKit(Kit):
    """The production layer of a Flask application.

    Either `ProdKit(app)`, or a module-level `prod = ProdKit()` and `prod.init_app(app)` in the factory. Handles
    can be used before any application exists; what they do in a request belongs to the current one.
    """
