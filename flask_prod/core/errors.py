"""What goes wrong before the first request, said so that the reader knows what to do next."""

from __future__ import annotations

from collections.abc import Iterable

from click import ClickException

from .redaction import without_keys


class ProdKitError(Exception):
    """Any error that flask-prod raises on purpose."""


class ConfigError(ProdKitError, ClickException):
    """The application cannot start as configured; `problems` has one sentence per finding.

    Every Flask command shows it as its text alone, without a stack.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        # A wrong value may be a secret that got into the wrong place, and whoever found it wrong has quoted it.
        self.problems = tuple(without_keys(problem) for problem in problems)
        super().__init__(str(self))

    def format_message(self) -> str:
        """Return what a command shows."""
        return str(self)

    def __str__(self) -> str:
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        return f"flask-prod cannot start:\n{lines}"


class MissingExtra(ConfigError):
    """A room needs a library that is not installed; the message has the exact pip command."""

    def __init__(self, room: str, library: str, extra: str) -> None:
        self.extra = extra
        super().__init__([f"{room} needs {library}: pip install 'flask-prod[{extra}]'"])

    def __str__(self) -> str:
        # No word of a start: a command that needs the library is refused as well, while the service runs.
        return " ".join(self.problems)


class Unavailable(ProdKitError):
    """A dependency cannot be reached now; raised at once while its circuit breaker is open."""


class SetupFinished(ProdKitError):
    """`init_app` was called again on an application that already has a kit."""


class NotInstalled(ProdKitError):
    """A room was asked for that this kit leaves out, or before any application exists."""
