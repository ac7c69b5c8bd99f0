"""Where lines go: files that move, pipes that fill up, streams that are gone."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flask_prod import ConfigError
from flask_prod.components.logs import output as module
from flask_prod.components.logs.output import FileOutput, Output
from tests.apps import MakeApp


class Drops:
    """Counts dropped lines."""

    count = 0

    def __call__(self) -> None:
        self.count += 1


def test_moved_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that logrotate moved away is opened anew under its name, without a signal."""
    monkeypatch.setattr(module, "_RECHECK", 0.0)
    path, moved = tmp_path / "log", tmp_path / "log.1"
    output = FileOutput(path, Drops())
    output.write(b"first\n")
    path.rename(moved)
    output.write(b"second\n")
    output.close()

    assert (moved.read_bytes(), path.read_bytes()) == (b"first\n", b"second\n")


def test_full_pipe() -> None:
    """A pipe that nobody reads delays one line a little, drops it whole, and takes lines again afterwards."""
    reader, writer = os.pipe()
    drops = Drops()
    output = Output(writer, drops)
    line = b"x" * 1000 + b"\n"
    began = time.perf_counter()
    for _ in range(1000):
        output.write(line)
    spent = time.perf_counter() - began
    kept = 1000 - drops.count
    content = os.read(reader, 1_000_000)
    output.write(b"again\n")
    content += os.read(reader, 1_000_000)
    output.close()
    os.close(writer)
    os.close(reader)

    assert spent < 1
    assert drops.count > 0
    assert content == line * kept + b"again\n"


def test_pipe_stays_blocking_for_others() -> None:
    """Whoever shares the pipe sees no difference: our descriptor alone does not block."""
    reader, writer = os.pipe()
    output = Output(writer, Drops())

    assert os.get_blocking(writer)
    output.close()
    os.close(writer)
    os.close(reader)


def test_long_line() -> None:
    """A line longer than the pipe goes through whole when it is read."""
    reader, writer = os.pipe()
    output = Output(writer, Drops())
    line = b"y" * 300_000 + b"\n"
    thread = threading.Thread(target=output.write, args=(line,))
    thread.start()
    content = b""
    while len(content) < len(line):
        content += os.read(reader, 65536)
    thread.join()
    output.close()
    os.close(writer)
    os.close(reader)

    assert content == line


def test_missing_lines_are_told() -> None:
    """As soon as somebody reads again, one line says how many are missing, before any other."""
    reader, writer = os.pipe()
    drops = Drops()
    output = Output(writer, drops)
    output.notice = lambda count: f"{count} missing\n".encode()
    for _ in range(1000):
        output.write(b"x" * 999 + b"\n")
    os.read(reader, 1_000_000)
    output.settle()  # nobody has anything to say, the thread looks anyway
    output.write(b"again\n")
    content = os.read(reader, 1_000_000)
    output.close()
    os.close(writer)
    os.close(reader)

    assert content == f"{drops.count} missing\nagain\n".encode()


def test_cut_line_is_completed() -> None:
    """A long line that found room for its beginning only is completed before the next one begins."""
    reader, writer = os.pipe()
    drops = Drops()
    output = Output(writer, drops)
    long = b"y" * 100_000 + b"\n"
    output.write(long)
    output.write(b"dropped\n")
    content = os.read(reader, 1_000_000)
    output.write(b"next\n")
    content += os.read(reader, 1_000_000)
    output.close()
    os.close(writer)
    os.close(reader)

    assert content == long + b"next\n"
    assert drops.count == 1


def test_many_threads() -> None:
    """Threads that write long and short lines while the reader is slow never mix two lines."""
    reader, writer = os.pipe()
    drops = Drops()
    output = Output(writer, drops)
    lines = [str(number).encode() * size + b"\n" for number in range(1, 7) for size in (10, 90_000)]

    def write() -> None:
        for line in lines:
            output.write(line)

    threads = [threading.Thread(target=write) for _ in range(6)]
    content = b""
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) or select.select((reader,), (), (), 0.05)[0]:
        if select.select((reader,), (), (), 0.05)[0]:
            content += os.read(reader, 65_536)
            time.sleep(0.001)
        output.settle()
    output.close()
    os.close(writer)
    os.close(reader)

    assert {len(set(row)) for row in content.splitlines()} == {1}
    assert set(content.splitlines(keepends=True)) <= set(lines)


def test_journal() -> None:
    """A socket, as systemd gives one to a service, does not block either, and stays blocking for others."""
    ours, theirs = socket.socketpair()
    drops = Drops()
    output = Output(ours.fileno(), drops)
    began = time.perf_counter()
    for _ in range(3000):
        output.write(b"x" * 999 + b"\n")
    spent = time.perf_counter() - began
    theirs.recv(1_000_000)
    assert os.get_blocking(ours.fileno())
    output.close()
    ours.close()
    theirs.close()

    assert drops.count > 0
    assert spent < 2


def test_pipe_of_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that cannot be opened anew is asked for room first, and does not block either."""
    opened = os.open
    refuse = PermissionError(13, "Permission denied")

    def open_none(path: str, *args: int, **kwargs: int) -> int:
        if str(path).startswith("/proc"):
            raise refuse
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", open_none)
    reader, writer = os.pipe()
    drops = Drops()
    output = Output(writer, drops)
    long = b"z" * 10_000 + b"\n"
    output.write(long)
    content = os.read(reader, 1_000_000)
    began = time.perf_counter()
    for _ in range(1000):
        output.write(b"x" * 999 + b"\n")
    spent = time.perf_counter() - began
    output.close()
    os.close(writer)
    os.close(reader)

    assert content == long
    assert drops.count > 0
    assert spent < 2


def test_full_disk() -> None:
    """A full disk costs lines, which are counted, and no error."""
    drops = Drops()
    output = FileOutput(Path("/dev/full"), drops)
    output.write(b"x\n")
    output.close()

    assert drops.count == 1


def test_signal(make_app: MakeApp, tmp_path: Path, wait_for: Callable[..., Any]) -> None:
    """SIGUSR1 opens the file anew, after the handler that was there before; closing puts that one back."""
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
    try:
        log = tmp_path / "log"
        app = make_app(only=("logs",), LOG_OUTPUT=str(log), LOG_LEVEL="INFO")
        app.test_client().get("/").close()
        log.rename(tmp_path / "moved")
        os.kill(os.getpid(), signal.SIGUSR1)
        wait_for(lambda: heard, 2, "the signal")
        app.test_client().get("/").close()
        app.extensions["prod"].lifecycle.close()
        os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)

    events = [json.loads(line)["event"] for line in log.read_bytes().splitlines()]
    assert events == ["request", "prod.process.closed"]
    assert heard == [signal.SIGUSR1] * 2


def test_worker_survives_the_signal(make_app: MakeApp, tmp_path: Path) -> None:
    """A job worker, which starts no thread of ours, hears the signal from the beginning."""
    import click

    before = signal.getsignal(signal.SIGUSR1)

    @click.command("worker")
    def work() -> None:
        app = make_app(only=("logs",), LOG_OUTPUT=str(tmp_path / "log"))
        os.kill(os.getpid(), signal.SIGUSR1)
        app.extensions["prod"].lifecycle.close()

    work.main([], prog_name="worker", standalone_mode=False)

    assert signal.getsignal(signal.SIGUSR1) == before


def test_reader_gone() -> None:
    """A pipe without a reader costs the line, not the request."""
    reader, writer = os.pipe()
    drops = Drops()
    output = Output(writer, drops)
    os.close(reader)
    output.write(b"x\n")
    output.close()
    output.write(b"late\n")
    os.close(writer)

    assert drops.count == 2


def test_standard_stream(make_app: MakeApp, capfd: pytest.CaptureFixture[str]) -> None:
    """The default is JSON on stdout; stderr can be chosen."""
    make_app(only=("logs",), LOG_LEVEL="INFO").test_client().get("/").close()
    out, err = capfd.readouterr()
    assert (json.loads(out)["status"], err) == (404, "")

    make_app(only=("logs",), LOG_LEVEL="INFO", LOG_OUTPUT="stderr").test_client().get("/").close()
    out, err = capfd.readouterr()
    assert (out, json.loads(err)["status"]) == ("", 404)


def test_command_line(make_app: MakeApp, capfd: pytest.CaptureFixture[str]) -> None:
    """A command's lines go to stderr, so that what it prints can be read by machines; a server's go to stdout."""
    import click

    @click.command()
    def look() -> None:
        make_app(only=("logs",)).logger.warning("in a command")

    @click.command("run")
    def run() -> None:
        make_app(only=("logs",)).logger.warning("in a server")

    look.main([], standalone_mode=False)
    assert capfd.readouterr().out == ""
    run.main([], prog_name="run", standalone_mode=False)
    assert "in a server" in capfd.readouterr().out


def test_bad_settings(make_app: MakeApp, tmp_path: Path) -> None:
    """A level that is none and a file that cannot be opened stop the start with the key's name."""
    with pytest.raises(ConfigError, match="LOG_LEVEL must be one of DEBUG"):
        make_app(only=("logs",), LOG_LEVEL="LOUD")
    with pytest.raises(ConfigError, match=r"LOG_OUTPUT names .*nowhere.*No such file"):
        make_app(only=("logs",), LOG_OUTPUT=str(tmp_path / "nowhere" / "log"))
