"""What users hold: the library's own object; for blueprints and views it works as documented."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import CodeType
from typing import Any

import flask_cors
from flask import Blueprint, Flask
from flask_cors import CORS

from flask_prod.core.errors import SetupFinished


class CorsHandle(CORS):
    """Flask-CORS's CORS, whose application-wide part is the kit's pass and set up by ALLOWED_ORIGINS."""

    cross_origin = staticmethod(flask_cors.cross_origin)

    def __init__(self) -> None:
        super().__init__()

    def init_app(self, app: Flask | Blueprint, **options: Any) -> None:
        """Set up a blueprint as the library does; refuse an application, which ProdKit has set up already."""
        if isinstance(app, Flask):
            raise SetupFinished(
                "ProdKit sets up CORS itself: use ALLOWED_ORIGINS and CORS_RESOURCES, or @cross_origin on a view."
            )
        super().init_app(app, **options)


def _decorated_code() -> CodeType:
    view: Any = flask_cors.cross_origin()(lambda: None)
    code: CodeType = view.__code__
    return code


_DECORATED = _decorated_code()


def decorator_options(view: Callable[..., Any] | None) -> Mapping[str, Any] | None:
    """Return the options of the `@cross_origin` on *view*, None when there is none.

    The library keeps them in the wrapper's closure only; where that should change, the decorator still works by
    itself, on the answers of its view alone.
    """
    while view is not None:
        if getattr(view, "__code__", None) is _DECORATED:
            cells = dict(zip(_DECORATED.co_freevars, view.__closure__ or (), strict=True))
            options = cells["_options"].cell_contents if "_options" in cells else None
            return options if isinstance(options, Mapping) else None
        view = getattr(view, "__wrapped__", None)
    return None
