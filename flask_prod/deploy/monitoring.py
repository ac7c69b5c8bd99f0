"""What code makes of the target `monitoring`: rules with their unit tests, and dashboards."""

from __future__ import annotations

from collections.abc import Mapping

from .alerts.files import rule_files
from .dashboards import dashboard_files
from .plan import Plan


def files(plan: Plan) -> Mapping[str, str]:
    """Return path -> text."""
    return {**rule_files(plan), **dashboard_files(plan)}
