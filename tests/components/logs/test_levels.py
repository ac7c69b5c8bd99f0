"""Another level for a while: ordered by a command, obeyed by every process, taken back by itself."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from flask_prod.cli.group import prod as command
from flask_prod.components.logs.levels import LONGEST, Board, Change, Order, later
from tests.apps import MakeApp
from tests.servers import wait_for

from .conftest import Lines


@pytest.fixture(autouse=True)
def run_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let every application of a test share one directory, as the processes of one host do."""
    folder = tmp_path / "run"
    monkeypatch.setenv("RUN_DIR", str(folder))
    return folder


@pytest.fixture
def serving(shop: Flask) -> Iterator[Flask]:
    """An application that serves: its first request started the thread that looks."""
    shop.test_client().get("/product/1").close()
    yield shop
    for name in ("", "shop.orders", "lib"):
        logging.getLogger(name).setLevel(logging.NOTSET if name else logging.WARNING)


def run(app: Flask, *args: str) -> Result:
    from flask.cli import ScriptInfo

    info = ScriptInfo(create_app=lambda: app)
    return app.test_cli_runner().invoke(command, ["log-level", *args], obj=info)


def room(app: Flask) -> Any:
    return app.extensions["prod"].contributions["logs"]


def look(app: Flask) -> None:
    room(app).periodic[0].call()


def test_for_a_while(serving: Flask, lines: Lines, run_here: Path) -> None:
    """The root logger follows at once, everything is written, and when the time is over all is as before."""
    logger = logging.getLogger("shop.orders")
    logger.debug("not yet")
    answer = run(serving, "debug", "--for", "1s")
    look(serving)
    logger.debug("now")
    assert logging.getLogger().level == logging.DEBUG
    time.sleep(1.1)
    look(serving)
    logger.debug("no more")

    assert answer.exit_code == 0, answer.output
    assert "All loggers: DEBUG until" in answer.output
    assert f"Written to {run_here / 'log-level.json'}" in answer.output
    assert "No web process" not in answer.output
    assert [line["message"] for line in lines() if line.get("logger") == "shop.orders"] == ["now"]
    assert logging.getLogger().level == logging.INFO
    (ordered,) = lines("prod.log.level_changed")
    assert ordered["fields"]["level"] == "DEBUG"
    assert "@" in ordered["fields"]["by"]
    assert lines("prod.log.level_restored")[0]["message"] == "The level of all loggers is as configured again."


def test_thread_follows(serving: Flask) -> None:
    """Nobody needs to ask: the thread that all rooms share looks every second."""
    run(serving, "debug")

    wait_for(lambda: logging.getLogger().level == logging.DEBUG, 4, "the new level")


def test_one_logger(serving: Flask, lines: Lines) -> None:
    """--logger reaches that logger and those below it, and leaves the others as they are."""
    run(serving, "debug", "--logger", "lib")
    look(serving)
    logging.getLogger("lib.sql").debug("below")
    logging.getLogger("shop.orders").debug("another")
    assert logging.getLogger("lib").level == logging.DEBUG
    shown = run(serving).output
    run(serving, "--reset", "--logger", "lib")
    look(serving)

    assert [line["message"] for line in lines() if not line.get("event")] == ["below"]
    assert "All loggers: INFO, as configured" in shown
    assert "Logger lib: DEBUG until" in shown
    assert logging.getLogger("lib").level == logging.NOTSET


def test_more_silent(serving: Flask, lines: Lines) -> None:
    """A higher level silences requests too; who ordered that is still in the log."""
    run(serving, "critical")
    look(serving)
    serving.test_client().get("/product/2").close()
    run(serving, "--reset")
    look(serving)
    serving.test_client().get("/product/3").close()

    assert [line["path"] for line in lines("request")] == ["/product/1", "/product/3"]
    assert len(lines("prod.log.level_changed")) == 1


def test_closing_gives_back(serving: Flask) -> None:
    """An application that closes leaves no logger with another level than before."""
    run(serving, "debug", "--logger", "lib")
    look(serving)
    serving.extensions["prod"].lifecycle.close()

    assert logging.getLogger("lib").level == logging.NOTSET


def test_job_process(shop: Flask, lines: Lines) -> None:
    """A forked job process, which has no thread that looks, obeys from its first line and until the end."""
    run(shop, "debug", "--for", "1s")
    room(shop).after_fork()
    logging.getLogger("shop.orders").debug("in time")
    time.sleep(1.1)
    logging.getLogger("shop.orders").debug("too late")

    assert [line["message"] for line in lines() if line.get("logger") == "shop.orders"] == ["in time"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("loud",), "'loud' is none of debug, info"),
        (("debug", "--for", "25h"), "not between 1s and 24h"),
        (("debug", "--for", "soon"), "'soon' is not a time: write 90s, 10m or 6h"),
        (("debug", "--for", "0"), "not between"),
        (("debug", "--reset"), "not both"),
        (("debug", "--logger", "a\nb"), "no name of a logger"),
    ],
)
def test_bad_input(shop: Flask, args: tuple[str, ...], words: str, run_here: Path) -> None:
    """What cannot be ordered is said so, and nothing is written."""
    answer = run(shop, *args)

    assert answer.exit_code == 2
    assert words in answer.output
    assert not (run_here / "log-level.json").exists()


def test_nobody_serves(shop: Flask) -> None:
    """Without a running service the command says that nobody was found, and where it left word."""
    answer = run(shop, "debug")

    assert answer.exit_code == 0
    assert "No web process of this service was found on this host" in answer.output


def test_nowhere_to_write(shop: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a directory and without Redis the command fails and says what to set."""
    monkeypatch.setattr("flask_prod.components.logs.component.run_dir", lambda *_: None)
    answer = run(shop, "debug")

    assert answer.exit_code == 1
    assert "set RUN_DIR or REDIS_URL" in answer.output


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense",
        b"[]",
        b'{"at": "x"}',
        b'{"at": 1, "changes": [{"logger": "a", "level": "LOUD"}]}',
        b"\xff" * 99_999,
        b'{"at": 1e308, "changes": [{"logger": "", "level": "DEBUG", "at": 0, "until": 1e308, "by": "x"}]}',
    ],
)
def test_nonsense_in_the_file(serving: Flask, run_here: Path, content: bytes) -> None:
    """A file that makes no sense, or orders for ever, changes nothing."""
    (run_here / "log-level.json").write_bytes(content)
    look(serving)

    assert logging.getLogger().level == logging.INFO


def test_other_hosts(make_app: MakeApp, redis_url: str, tmp_path: Path) -> None:
    """With a Redis a change reaches another host by its leader, which passes it on to its own processes."""
    hosts = [
        make_app(only=("logs", "redis"), REDIS_URL=redis_url, RUN_DIR=str(tmp_path / name), LOG_LEVEL="INFO",
                 LOG_OUTPUT=str(tmp_path / f"{name}.log")) for name in ("here", "there")
    ]  # fmt: skip
    answer = run(hosts[0], "debug")
    with hosts[1].app_context():
        room(hosts[1]).periodic[1].call()

    assert "Written to Redis: other hosts follow" in answer.output
    assert room(hosts[1]).handle.level == logging.DEBUG
    assert room(hosts[0]).handle.level == logging.INFO  # nobody looked there yet
    assert (tmp_path / "there" / "log-level.json").exists()
    run(hosts[0], "--reset")
    room(hosts[1]).periodic[1].call()
    assert room(hosts[1]).handle.level == logging.INFO


def test_redis_away(make_app: MakeApp, tmp_path: Path) -> None:
    """Without its Redis the service is silent about it, and the command says who will not follow."""
    log = tmp_path / "log"
    app = make_app(only=("logs", "redis"), REDIS_URL="redis://127.0.0.1:1/0", LOG_OUTPUT=str(log))
    room(app).periodic[1].call()
    answer = run(app, "debug")

    assert answer.exit_code == 0
    assert "Redis cannot be reached: other hosts do not follow" in answer.output
    assert b"log-level" not in log.read_bytes()


def test_latest_counts() -> None:
    """Of two orders the later one counts; what is over, or lies further ahead than a day, does not."""
    now = time.time()
    past, ahead, good = (
        Change(name, "DEBUG", now, until, "x")
        for name, until in (("past", now - 1), ("ahead", now + 3 * LONGEST), ("good", now + 9))
    )

    assert later((None, Order(1.0), Order(2.0))).at == 2.0
    assert Order(now, (past, ahead, good)).valid(now).changes == (good,)


def test_few_changes() -> None:
    """However many loggers are changed, twenty are kept, the latest."""
    order = Order(0.0)
    for number in range(50):
        order = Order(0.0, order.with_change(Change(str(number), "INFO", 0.0, 1.0, "x")))

    assert [change.logger for change in order.changes] == [str(number) for number in range(30, 50)]


def test_unwritable_folder(tmp_path: Path) -> None:
    """A folder that has gone is no crash."""
    board = Board(lambda: tmp_path / "gone", lambda: None)

    assert (board.write(Order(0.0)), board.read(), board.stamp(), board.read_shared()) == (
        False,
        None,
        (0, 0),
        None,
    )
