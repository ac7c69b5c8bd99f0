"""Where lines go: files that move, pipes that fill up, streams that are gone."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

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
    import threading

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
