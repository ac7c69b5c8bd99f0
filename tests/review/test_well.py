"""Nothing is found in applications that are ready."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from tests.review.well import KINDS, reviewed


@pytest.mark.parametrize("build", KINDS, ids=lambda kind: kind.__name__)
def test_no_false_finding(build: Callable[[], Flask], tmp_path: Path) -> None:
    """An API behind a proxy, a site with sessions and a service of jobs have no finding of any severity."""
    report = reviewed(build(), tmp_path)

    assert [(one.id, one.evidence) for one in report.findings] == []
    assert report.asked > 70
