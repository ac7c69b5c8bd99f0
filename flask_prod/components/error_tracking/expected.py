"""Which errors are no news."""

from __future__ import annotations

from collections.abc import Collection

from werkzeug.exceptions import ServiceUnavailable

from flask_prod.core.errors import Unavailable


class Expected:
    """Tells errors that are no news: by class name, and those that say a dependency is away."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = frozenset(names)
        self._known: dict[type[BaseException], bool] = {}

    def __call__(self, error: BaseException) -> bool:
        """Tell whether *error* is expected.

        An outage is reported when its breaker opens, not by each of the requests that it costs.
        """
        kind = type(error)
        known = self._known.get(kind)
        if known is None:
            known = self._known[kind] = issubclass(kind, Unavailable | ServiceUnavailable) or self.named(error)
        return known

    def named(self, error: BaseException | None) -> bool:
        """Tell whether ERRORS_EXPECTED names the class of *error*, or one that it is derived from."""
        return any(
            {base.__name__, f"{base.__module__}.{base.__qualname__}"} & self._names for base in type(error).__mro__
        )
