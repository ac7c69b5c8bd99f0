"""What the tests of the metrics room share: reading a scrape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import pytest
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families


class Scrape(Protocol):
    """Reads the metrics of an application."""

    def __call__(self, app: Flask) -> Samples:
        """Scrape *app* from loopback."""


class Samples:
    """One scrape, asked by name and labels."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = list(text_string_to_metric_families(text))
        self.samples = [sample for family in self.families for sample in family.samples]

    def total(self, name: str, labels: Mapping[str, str] | None = None) -> float:
        """Add up the samples called *name* that have *labels*."""
        wanted = (labels or {}).items()
        return sum(s.value for s in self.samples if s.name == name and wanted <= s.labels.items())

    def has(self, name: str, labels: Mapping[str, str] | None = None) -> bool:
        """Tell whether there is such a sample."""
        wanted = (labels or {}).items()
        return any(s.name == name and wanted <= s.labels.items() for s in self.samples)


@pytest.fixture
def scrape() -> Scrape:
    """Give a function that reads an application's metrics."""

    def read(app: Flask) -> Samples:
        answer = app.test_client().get("/metrics")
        assert answer.status_code == 200
        return Samples(answer.text)

    return read
