"""The vocabulary of the production check: that of every rule, and what the engine makes of its evidence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flask_prod.core.rule import (
    ERROR,
    INFO,
    SEVERITIES,
    WARNING,
    Chmod,
    Evidence,
    Evidences,
    Fix,
    NewSecret,
    Rule,
    rule,
)

__all__ = [
    "ERROR", "INFO", "SEVERITIES", "WARNING", "Chmod", "Evidence", "Evidences", "Finding", "Fix", "NewSecret",
    "Rule", "rule",
]  # fmt: skip


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
