"""Where the process that leads a reload writes down what is in force, and others ask it to look now."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import msgspec


class Report(msgspec.Struct):
    """How one reload went. No value in it is secret: what can change while a service runs never is."""

    generation: int = 0
    stamp: str = ""
    asked: str = ""
    changed: Sequence[str] = ()
    waiting: Sequence[str] = ()
    refused: Sequence[str] = ()
    values: dict[str, Any] = {}


class Board:
    """Two files in RUN_DIR: the last report, and the last wish for one; without RUN_DIR there are none."""

    def __init__(self, folder: Path | None) -> None:
        self._report = None if folder is None else folder / "settings.json"
        self._wish = None if folder is None else folder / "settings.ask"
        self._stamp: tuple[int, int] | None = None

    def asked(self) -> str:
        """Return the last wish; empty when there was none."""
        try:
            return "" if self._wish is None else self._wish.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            return ""

    def generation(self) -> int:
        """Return how often something was reported so far."""
        report = self._read()
        return 0 if report is None else report.generation

    def news(self, since: int) -> Report | None:
        """Return the last report when it is younger than generation *since*."""
        if self._report is None:
            return None
        try:
            found = os.stat(self._report)
        except OSError:
            return None
        stamp = (found.st_mtime_ns, found.st_ino)
        if stamp == self._stamp:
            return None
        report = self._read()
        self._stamp = stamp
        return report if report is not None and report.generation > since else None

    def publish(self, report: Report) -> int:
        """Write a report under the next generation, and return that."""
        report.generation = self.generation() + 1
        if self._report is not None:
            _write(self._report, json.dumps(msgspec.to_builtins(report)))
        return report.generation

    def ask(self, seconds: float) -> Report | None:
        """Wish for a reload, and return how it went; None when nobody answers in time."""
        if self._wish is None:
            return None
        wish = secrets.token_hex(8)
        _write(self._wish, wish)
        until = monotonic() + seconds
        while monotonic() < until:
            report = self._read()
            if report is not None and report.asked == wish:
                return report
            sleep(0.05)
        return None

    def _read(self) -> Report | None:
        try:
            return None if self._report is None else msgspec.json.decode(self._report.read_bytes(), type=Report)
        except (OSError, msgspec.DecodeError):
            return None


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(draft, path)
