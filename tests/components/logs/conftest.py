"""What the tests of logs share: an application that logs to a file, and reading it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from flask import Flask

from tests.apps import MakeApp


def boom() -> str:
    return str(1 / 0)


class Lines(Protocol):
    """Reads what was logged so far."""

    def __call__(self, event: str = "") -> list[dict[str, Any]]:
        """Return all lines, or those of this event."""


@pytest.fixture
def log_file(tmp_path: Path) -> Path:
    return tmp_path / "shop.log"


@pytest.fixture
def lines(log_file: Path) -> Lines:
    def read(event: str = "") -> list[dict[str, Any]]:
        found = [json.loads(line) for line in log_file.read_bytes().split(b"\n")[:-1]]
        return [line for line in found if not event or line.get("event") == event]

    return read


@pytest.fixture
def shop(make_app: MakeApp, log_file: Path) -> Iterator[Flask]:
    app = make_app(only=("logs",), LOG_OUTPUT=str(log_file), LOG_LEVEL="INFO", SERVICE_VERSION="1.2",
                   PROPAGATE_EXCEPTIONS=False)  # fmt: skip
    app.add_url_rule("/product/<int:number>", "product", lambda number: f"product {number}")
    app.add_url_rule("/boom", "boom", boom)
    yield app
    app.extensions["prod"].lifecycle.close()
