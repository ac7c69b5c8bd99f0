"""The misbehaving proxy misbehaves exactly as it says."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeAlias

import pytest

from tests import servers
from tests.servers import HOST, FaultProxy

Connect: TypeAlias = Callable[..., socket.socket]


class Echo:
    """An echo server that counts what it received: proves that a lost answer does not mean lost work."""

    def __init__(self) -> None:
        self.received = 0
        self._listener = socket.create_server((HOST, 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        """Stop listening and wait for every connection's thread."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while data := connection.recv(65536):
                self.received += len(data)
                connection.sendall(data)


@pytest.fixture(scope="module")
def echo() -> Iterator[Echo]:
    """Run the echo server."""
    server = Echo()
    yield server
    server.close()


@pytest.fixture(scope="module")
def running(echo: Echo) -> Iterator[FaultProxy]:
    """Run one proxy for all tests here."""
    with FaultProxy(echo.port) as proxy:
        yield proxy


@pytest.fixture
def proxy(running: FaultProxy) -> FaultProxy:
    """Give the proxy in its transparent mode."""
    running.set("pass")
    return running


@pytest.fixture
def connect(proxy: FaultProxy) -> Iterator[Connect]:
    """Give a factory of connections through the proxy; each is closed afterwards."""
    opened: list[socket.socket] = []

    def new(timeout: float = 2.0) -> socket.socket:
        connection = socket.create_connection((HOST, proxy.port), timeout)
        opened.append(connection)
        return connection

    yield new
    for connection in opened:
        connection.close()


def round_trip(connection: socket.socket, data: bytes = b"ping") -> tuple[bytes, float]:
    """Return what came back and the seconds it took."""
    began = time.monotonic()
    connection.sendall(data)
    answer = b""
    while len(answer) < len(data):
        piece = connection.recv(65536)
        if not piece:
            break
        answer += piece
    return answer, time.monotonic() - began


def test_pass_carries_a_megabyte(connect: Connect) -> None:
    """Nothing is lost or changed."""
    data, connection = os.urandom(1 << 20), connect(5)
    sender = threading.Thread(target=connection.sendall, args=(data,))
    sender.start()
    answer = b""
    while len(answer) < len(data):
        answer += connection.recv(65536)
    sender.join()

    assert answer == data


def test_half_close_goes_through(connect: Connect) -> None:
    """The end of one direction leaves the other open."""
    connection = connect()
    connection.sendall(b"x")
    connection.shutdown(socket.SHUT_WR)

    assert connection.recv(9) == b"x"
    assert connection.recv(9) == b""


def test_latency_delays_and_does_not_throttle(proxy: FaultProxy, connect: Connect) -> None:
    """An open connection becomes late at once; ten pipelined chunks cost one delay."""
    connection = connect()
    round_trip(connection)
    proxy.set("latency 200")
    assert 0.15 < round_trip(connection)[1] < 0.5

    began, answer = time.monotonic(), b""
    for _ in range(10):
        connection.sendall(b"p" * 8)
        time.sleep(0.01)
    while len(answer) < 80:
        answer += connection.recv(999)
    assert time.monotonic() - began < 1.0


def test_throttle_caps_the_rate(proxy: FaultProxy, connect: Connect) -> None:
    """Ten kilobytes at forty a second take a quarter of one."""
    proxy.set("throttle 40000")

    assert 0.2 < round_trip(connect(5), b"z" * 10000)[1] < 2.0


def test_black_hole_is_silent_then_resets(proxy: FaultProxy, connect: Connect) -> None:
    """Old and new connections stay open and hear nothing; after `pass` they are reset, never resumed."""
    connection = connect(0.3)
    round_trip(connection)
    proxy.set("blackhole")
    for one in (connection, connect(0.3)):
        one.sendall(b"a")
        with pytest.raises(TimeoutError):
            one.recv(1)

    proxy.set("pass")
    with pytest.raises(ConnectionError):  # noqa: PT012  # the first send may still succeed
        for _ in range(50):
            connection.sendall(b"b")
            time.sleep(0.01)


@pytest.mark.parametrize(("way", "done"), [("down", 5), ("up", 0)])
def test_black_hole_has_a_direction(proxy: FaultProxy, connect: Connect, echo: Echo, way: str, done: int) -> None:
    """With `down` the server does the work and only the answer is lost; with `up` it hears nothing."""
    connection = connect(0.3)
    proxy.set(f"blackhole {way}")
    before = echo.received
    connection.sendall(b"12345")
    with pytest.raises(TimeoutError):
        connection.recv(1)

    assert echo.received - before == done


def test_refuse_looks_like_a_killed_server(proxy: FaultProxy, connect: Connect) -> None:
    """Open connections end, new ones are refused, and all is well afterwards."""
    connection = connect()
    round_trip(connection)
    proxy.set("refuse")
    with pytest.raises(ConnectionRefusedError):
        connect()
    assert connection.recv(1) == b""

    proxy.set("pass")
    assert round_trip(connect())[0] == b"ping"


def test_reset_resets_old_and_new(proxy: FaultProxy, connect: Connect) -> None:
    """Every connection ends with a reset."""
    connection = connect()
    round_trip(connection)
    proxy.set("reset")
    with pytest.raises(ConnectionResetError):
        connection.recv(1)
    with pytest.raises(ConnectionError):
        round_trip(connect())


def test_synhole_lets_connect_time_out(proxy: FaultProxy, connect: Connect) -> None:
    """Nobody answers a connection attempt, as behind a firewall that drops."""
    proxy.set("synhole")
    with pytest.raises(TimeoutError):
        connect(0.3)

    proxy.set("pass")
    assert round_trip(connect())[0] == b"ping"


def test_cut_tears_the_answer(proxy: FaultProxy, connect: Connect) -> None:
    """No more than the given bytes arrive before the reset."""
    proxy.set("cut 3")
    connection, answer = connect(), b""
    connection.sendall(b"abcdef")
    with pytest.raises(ConnectionResetError):  # noqa: PT012  # the bytes before the reset count too
        while True:
            answer += connection.recv(9)

    assert len(answer) <= 3


def test_corrupt_flips_one_bit(proxy: FaultProxy, connect: Connect) -> None:
    """With probability 1 each chunk has one wrong bit."""
    proxy.set("corrupt 1")
    answer, _ = round_trip(connect(), b"\0" * 64)

    assert sum(byte.bit_count() for byte in answer) == 1


def test_kill_resets_and_counts(proxy: FaultProxy, connect: Connect) -> None:
    """`kill` ends open connections and keeps the mode; `status` counts."""
    connection = connect()
    round_trip(connection)
    assert proxy.status()["open"] >= 1
    proxy.set("kill")

    with pytest.raises(ConnectionResetError):
        connection.recv(1)
    assert proxy.status()["mode"] == "pass"


@pytest.mark.parametrize(
    "command", ["nope", "latency", "latency x", "throttle 0", "blackhole sideways", "latency -1", "pass 1"]
)
def test_nonsense_is_refused(proxy: FaultProxy, command: str) -> None:
    """A command that makes no sense is an error and changes nothing."""
    with pytest.raises(ValueError):  # noqa: PT011  # each has words of its own
        proxy.set(command)

    assert proxy.status()["mode"] == "pass"


def test_dead_upstream_resets() -> None:
    """Behind a proxy without a server every connection is reset."""
    with FaultProxy(servers.free_port()) as lonely:
        try:
            with socket.create_connection((HOST, lonely.port), 1) as connection:
                answer, _ = round_trip(connection)
        except ConnectionError:  # the reset may already come while connecting
            answer = b""

        assert answer == b""
        assert lonely.status()["upstream_fail"] == 1
