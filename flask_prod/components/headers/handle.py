"""What users hold: the library's own object, whose decorator marks views and whose hooks are never registered."""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, TypeVar

from flask_talisman import Talisman

from flask_prod.core.errors import SetupFinished
from flask_prod.core.record import current_record

ViewT = TypeVar("ViewT", bound=Callable[..., Any])

OPTIONS = frozenset(inspect.signature(Talisman.init_app).parameters) - {"self", "app"}
"""The names of the library's options, each of which a view may override."""

VIEW_OPTIONS = "talisman_view_options"
"""Where the library's decorator leaves a view's options."""


class TalismanHandle(Talisman):  # type: ignore[misc]  # the library has no types
    """flask-talisman's Talisman as a decorator; its settings are SECURITY_*, its hooks are the kit's pass."""

    def __init__(self) -> None:
        super().__init__()

    def init_app(self, app: Any, **options: Any) -> None:
        """Refuse: ProdKit has configured it already."""
        raise SetupFinished(
            "ProdKit sets up Talisman itself: use the SECURITY_* settings, or "
            "@prod.talisman(...) on a view for its own options."
        )

    def __call__(self, **options: Any) -> Callable[[ViewT], ViewT]:
        """Give a view options of its own: `@prod.talisman(frame_options="SAMEORIGIN")`."""
        for name in options.keys() - OPTIONS:
            near = get_close_matches(name, OPTIONS, n=1)
            raise TypeError(f"Talisman has no option {name}" + (f"; did you mean {near[0]}?" if near else "."))

        def mark(view: ViewT) -> ViewT:
            setattr(view, VIEW_OPTIONS, {**getattr(view, VIEW_OPTIONS, {}), **options})
            return view

        return mark

    @staticmethod
    def csp_nonce() -> str:
        """Return the nonce of this request, as `csp_nonce()` in a template does."""
        return csp_nonce()


def csp_nonce() -> str:
    """Return this request's nonce (128 bits), made on first use; empty outside of a request.

    The policy in the header names it only if it was asked for before the answer started.
    """
    record = current_record()
    if record is None:
        return ""
    if record.nonce is None:
        record.nonce = secrets.token_urlsafe(16)
    return record.nonce
