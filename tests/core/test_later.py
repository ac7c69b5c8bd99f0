from __future__ import annotations

import copy
import threading
import time
from typing import Any

import pytest

from flask_prod.core.later import Later


class Thing:
    """Something that tells what is asked of it."""

    def __init__(self) -> None:
        self.name = "thing"
        self.asked: list[str] = []

    def after_fork(self) -> None:
        self.asked.append("after_fork")

    def close(self) -> None:
        self.asked.append("close")


def test_built_when_it_is_used() -> None:
    """Nothing is made before somebody asks for an attribute, and then it is made once."""
    made: list[Thing] = []

    def make() -> Thing:
        made.append(Thing())
        return made[-1]

    later = Later(make)
    assert later.built is None

    assert (later.name, later.name) == ("thing", "thing")
    assert made == [later.built]


def test_never_used() -> None:
    """What nobody used is neither made to be told of a fork or its end, nor by those who look at it."""

    def make() -> Any:
        raise AssertionError("made")

    later = Later(make)
    later.after_fork()
    later.close()
    with pytest.raises(AttributeError):
        copy.copy(later).__wrapped__  # noqa: B018  # the look is what is tried

    assert later.built is None


def test_used_and_closed() -> None:
    """What was made is told of a fork and of its end."""
    later = Later(Thing)
    later.build()

    later.after_fork()
    later.close()

    assert later.asked == ["after_fork", "close"]


def test_threads_share_one() -> None:
    """Threads that ask at the same time get the same object."""

    def make() -> Thing:
        time.sleep(0.05)
        return Thing()

    later = Later(make)
    found: list[Thing] = []
    threads = [threading.Thread(target=lambda: found.append(later.build())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 8
    assert len(set(map(id, found))) == 1


def test_failure_is_not_kept() -> None:
    """What could not be made is tried again the next time."""
    failures = [OSError("not yet")]

    def make() -> Thing:
        if failures:
            raise failures.pop()
        return Thing()

    later = Later(make)
    with pytest.raises(OSError, match="not yet"):
        later.build()

    assert later.name == "thing"
