"""The vocabulary of the production check: a rule yields evidence, and with it becomes a finding."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from .subject import Subject

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
Judge: TypeAlias = "Callable[[Subject], Evidences]"


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


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that found something; `reason` is why it is silenced, None when it is not."""

    id: str
    severity: str
    title: str
    evidence: str
    remedy: str
    key: str = ""
    path: Path | None = None
    fix: Fix | None = None
    reason: str | None = None


def rule(id: str, severity: str, title: str, *, remedy: str, online: bool = False) -> Callable[[Judge], Rule]:
    """Make a rule of a function that yields evidence; its docstring is why the finding matters."""

    def made(judge: Judge) -> Rule:
        meaning = " ".join(inspect.cleandoc(judge.__doc__ or "").split())
        return Rule(id, severity, title, remedy, meaning, judge, online)

    return made
