from __future__ import annotations

import os
import threading

import pytest

from flask_prod.core.component import Contribution
from flask_prod.core.lifecycle import Lifecycle


def fail() -> None:
    raise RuntimeError("broken")


def test_start_once() -> None:
    """Many threads asking at once start a component once."""
    calls: list[int] = []
    lifecycle = Lifecycle({"a": Contribution(handle=None, start=lambda: calls.append(1))})
    threads = [threading.Thread(target=lifecycle.start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert calls == [1]


def test_close_in_reverse_and_once(caplog: pytest.LogCaptureFixture) -> None:
    """What was installed last is closed first, a failing one stops nobody, and a second close does nothing."""
    calls: list[str] = []
    lifecycle = Lifecycle(
        {
            "first": Contribution(handle=None, close=lambda: calls.append("first")),
            "broken": Contribution(handle=None, close=fail),
            "last": Contribution(handle=None, close=lambda: calls.append("last")),
        }
    )

    assert list(lifecycle.close()) == ["last", "broken", "first"]
    assert lifecycle.close() == {}
    assert calls == ["last", "first"]
    assert "close of broken failed" in caplog.text


def test_forked_child_renews_and_starts_anew() -> None:
    """In a forked child each component is renewed and background work starts again; the parent is left alone."""
    calls: list[str] = []
    lifecycle = Lifecycle(
        {
            "a": Contribution(
                handle=None, start=lambda: calls.append("start"), after_fork=lambda: calls.append("renew")
            )
        }
    )
    lifecycle.start()
    pid = os.fork()
    if pid == 0:
        lifecycle.start()
        os._exit(0 if calls == ["start", "renew", "start"] else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert calls == ["start"]
