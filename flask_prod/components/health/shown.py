"""Health as JSON can hold it: the same for HTTP and for `flask prod health`."""

from __future__ import annotations

from datetime import UTC, datetime

from flask_prod.core.component import Check

from .engine import Report, Result
from .telling import Change


def described(report: Report) -> dict[str, dict[str, object]]:
    """Return every check of a report by name."""
    return {name: shown(check, result) for name, (check, result) in report.results.items()}


def shown(check: Check, result: Result) -> dict[str, object]:
    """Return one check; `latency_ms` is how long its latest run took, `error` what its latest failure said."""
    return {
        "status": result.finding.status,
        "critical": check.critical,
        "latency_ms": round(result.latency * 1000, 1),
        "detail": result.finding.detail,
        "error": result.error,
        "failures": result.failures,
        "since": moment(result.since),
        "checked": moment(result.checked),
        "data": dict(result.finding.data),
    }


def told(change: Change) -> dict[str, object]:
    """Return one change of the history."""
    return {
        "at": moment(change.at),
        "check": change.check,
        "before": change.before,
        "after": change.after,
        "detail": change.detail,
    }


def moment(seconds: float) -> str:
    """Return a time of `time.time()` as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
