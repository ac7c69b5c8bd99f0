"""Findings as SARIF 2.1.0 (OASIS), which code hosts and editors show beside the code."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .engine import Report
from .rule import ERROR, INFO, WARNING, Finding, Rule

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
HELP = "docs/check.md"
"""Where our own findings are explained, whose ids begin with one letter."""

NOWHERE = "gunicorn.conf.py"
"""Where a finding is shown that is about no file: code hosts drop those without a place."""

_LEVELS = {ERROR: "error", WARNING: "warning", INFO: "note"}


def to_sarif(report: Report, rules: Iterable[Rule], folder: Path) -> dict[str, Any]:
    """Return one run; silenced findings are suppressed results with their reason."""
    known = {one.id: _rule(one.id, one.severity, one.title, one.meaning, one.remedy) for one in rules}
    findings = (*report.findings, *report.silenced)
    for one in findings:
        known.setdefault(one.id, _rule(one.id, one.severity, one.title, one.title, one.remedy))
    ids = list(known)
    driver = {
        "name": "flask-prod", "version": version("flask-prod"), "semanticVersion": version("flask-prod"),
        "rules": list(known.values()),
    }  # fmt: skip
    results = [_result(one, ids.index(one.id), folder) for one in findings]
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}],
    }


def _rule(id: str, severity: str, title: str, meaning: str, remedy: str) -> dict[str, Any]:
    return {
        "id": id,
        "name": "".join(word.strip("',.").capitalize() for word in title.split()),
        "shortDescription": {"text": title},
        "fullDescription": {"text": meaning},
        "help": {"text": f"{remedy} See {HELP}#{id.lower()}." if id[1:].isdigit() else remedy},
        "defaultConfiguration": {"level": _LEVELS[severity]},
    }


def _result(one: Finding, index: int, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {
        "ruleId": one.id,
        "ruleIndex": index,
        "level": _LEVELS[one.severity],
        "message": {"text": f"{one.title}: {one.evidence}. {one.remedy}"},
        "locations": [_location(one, folder)],
        "partialFingerprints": {"finding/v1": f"{one.id}:{one.key or one.evidence}"},
    }
    if one.reason is not None:
        found["suppressions"] = [{"kind": "external", "status": "accepted", "justification": one.reason}]
    return found


def _location(one: Finding, folder: Path) -> dict[str, Any]:
    path = one.path or Path(NOWHERE)
    if path.is_absolute() and path.is_relative_to(folder):
        path = path.relative_to(folder)
    uri = path.as_uri() if path.is_absolute() else path.as_posix()
    place: dict[str, Any] = {"physicalLocation": {"artifactLocation": {"uri": uri}, "region": {"startLine": 1}}}
    if one.key:
        place["logicalLocations"] = [{"name": one.key, "kind": "variable"}]
    return place
