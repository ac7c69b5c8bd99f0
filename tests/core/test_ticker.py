"""What components do again and again, in one thread."""

from __future__ import annotations

import logging
import threading
from time import monotonic, sleep

import pytest

from flask_prod.core.component import Periodic
from flask_prod.core.ticker import Ticker


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "flask-prod-ticker"}


def test_work_is_repeated_until_the_stop() -> None:
    """Each piece of work is called at its own interval, none after `stop`."""
    often, seldom = [], []
    before = _threads()
    ticker = Ticker(
        [
            Periodic("often", 0.01, lambda: often.append(monotonic())),
            Periodic("seldom", 0.1, lambda: seldom.append(monotonic())),
        ]
    )
    sleep(0.5)
    ticker.stop()
    calls = len(often)
    assert calls > 2 * len(seldom) > 2
    sleep(0.05)
    assert len(often) == calls
    assert _threads() <= before


def test_failing_work_is_logged_once_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """Work that raises is one line in the log however often it fails, and stops nobody else."""
    tried: list[int] = []

    def fail() -> None:
        tried.append(1)
        raise OSError("gone")

    others: list[int] = []
    with caplog.at_level(logging.ERROR):
        ticker = Ticker([Periodic("watch", 0.01, fail), Periodic("other", 0.01, lambda: others.append(1))])
        sleep(0.3)
        ticker.stop()
    assert len(tried) > 2
    assert len(others) > 2
    assert [record.getMessage() for record in caplog.records] == ["watch failed; it is tried again every 0.01 s"]


def test_no_work_needs_no_thread() -> None:
    """A kit whose components have nothing to repeat starts no thread."""
    before = _threads()
    Ticker([])
    assert _threads() <= before
