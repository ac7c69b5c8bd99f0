"""What can be wrong with a deployment: a rule yields evidence, which `flask prod check` turns into findings.

Rules of components and those of flask-prod itself are made of the same words.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from flask import Flask

ERROR, WARNING, INFO = "error", "warning", "info"
SEVERITIES = (ERROR, WARNING, INFO)
"""The worst first: an error is unsafe or broken, a warning will hurt one day, an info is for you to decide."""


@dataclass(frozen=True, slots=True)
class Chmod:
    """Take the rights of others from a file."""

    path: Path
    mode: int


@dataclass(frozen=True, slots=True)
class NewSecret:
    """Write a new strong secret for a setting that has none into `.env`."""

    key: str


Fix: TypeAlias = Chmod | NewSecret


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen: one sentence without secrets; the setting or file that it is about; what would mend it."""

    text: str
    key: str = ""
    path: Path | None = None
    fix: Fix | None = None


Evidences: TypeAlias = Iterator[Evidence | str]
Judge: TypeAlias = Callable[[Any], Evidences]


class Deployment(Protocol):
    """What a rule is asked about, as far as a component may count on it."""

    environment: str
    """The profile that is checked: production, staging ..."""

    @property
    def app(self) -> Flask | None:
        """The application."""

    @property
    def environ(self) -> Mapping[str, str]:
        """The environment's variables."""

    def has(self, *keys: str) -> bool:
        """Tell whether the application has all of these settings: rooms may be left out."""

    def get(self, key: str, default: Any = None) -> Any:
        """Return a setting by the first of its names; *default* where its room is left out."""

    def text(self, key: str) -> str:
        """Return a setting as text, also a secret one, which must not be shown."""

    def said(self, key: str) -> str:
        """Return a setting as a piece of evidence: `LOG_LEVEL is DEBUG (environment)`, secrets as fingerprints."""

    def config(self, key: str, default: Any = None) -> Any:
        """Return a value of app.config that is no setting of the kit."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that can be wrong; `meaning` says why it matters, `remedy` what to type.

    An `online` rule asks the service's own servers, or looks at the machine: it is for where the service runs.
    """

    id: str
    severity: str
    title: str
    remedy: str
    meaning: str
    judge: Judge
    online: bool = False


def rule(id: str, severity: str, title: str, *, remedy: str, online: bool = False) -> Callable[[Judge], Rule]:
    """Make a rule of a function that yields evidence; its docstring is why the finding matters."""

    def made(judge: Judge) -> Rule:
        meaning = " ".join(inspect.cleandoc(judge.__doc__ or "").split())
        return Rule(id, severity, title, remedy, meaning, judge, online)

    return made
