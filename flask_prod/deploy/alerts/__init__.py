"""Recording rules and alerts as data: of them Prometheus' files, a PrometheusRule and the unit tests are made."""

from __future__ import annotations

from .rule import CRITICAL, WARNING, Alert, Case, Recording, Scope
from .topics import Topic, alerts, recordings, topics

__all__ = [
    "CRITICAL",
    "WARNING",
    "Alert",
    "Case",
    "Recording",
    "Scope",
    "Topic",
    "alerts",
    "recordings",
    "topics",
]
