"""The request path's own way through redis-py, against a real server and a network that misbehaves."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socket import create_server
from typing import Any

import pytest
import redis

from flask_prod.components.redis import RedisSettings
from flask_prod.components.redis.clients import build_client, renew
from flask_prod.components.redis.failures import Starved
from flask_prod.components.redis.lean import LeanClient
from flask_prod.components.redis.wire import pack
from flask_prod.core.values import SecretUrl
from tests.apps import StartFaultProxy
from tests.servers import Valkey

MakeClient = Callable[..., LeanClient]


@pytest.fixture
def make_client() -> Iterator[MakeClient]:
    clients: list[LeanClient] = []

    def make(url: str, **settings: Any) -> LeanClient:
        client = build_client(RedisSettings(url=SecretUrl(url), **settings), "request")
        assert isinstance(client, LeanClient)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.connection_pool.disconnect()


@contextmanager
def server(*answers: bytes) -> Iterator[str]:
    """Answer one command of each connection by some bytes, then close it."""
    listener = create_server(("127.0.0.1", 0))

    def serve() -> None:
        for answer in answers:
            peer, _ = listener.accept()
            with peer:
                peer.recv(4096)
                peer.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
    listener.close()
    thread.join(5)


def echo(client: LeanClient, text: bytes) -> Any:
    return client.ask(pack(b"ECHO", text))


def test_every_kind_of_single_answer(make_client: MakeClient, redis_url: str) -> None:
    """Text of any size, numbers, nothing, a status; errors are redis-py's own and cost no connection."""
    client = make_client(redis_url)
    for text in (b"", b"x", b"a\r\nb", b"y" * 1_000_000):
        assert echo(client, text) == text
    assert client.ask(pack(b"SET", b"k", b"1")) == b"OK"
    assert client.ask(pack(b"INCR", b"k")) == 2
    assert client.ask(pack(b"GET", b"nothing")) is None

    before = client.ask(pack(b"CLIENT", b"ID"))
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        client.ask(pack(b"LPUSH", b"k", b"1"))
    with pytest.raises(redis.exceptions.NoScriptError):
        client.ask(pack(b"EVALSHA", b"0" * 40, b"0"))
    assert client.ask(pack(b"CLIENT", b"ID")) == before


def test_lists_and_lists_in_lists(make_client: MakeClient, redis_url: str) -> None:
    """An answer of several values is a list of them, whatever its size."""
    client = make_client(redis_url)
    client.mset({f"k{n}": "v" * 1000 for n in range(300)})

    assert client.ask(pack(b"MGET", *(b"k%d" % n for n in range(300)), b"none")) == [b"v" * 1000] * 300 + [None]
    assert client.ask(pack(b"EVAL", b"return {1,{'a',{}},false}", b"0")) == [1, [b"a", []], None]
    assert echo(client, b"mine") == b"mine"


def test_many_commands_in_one_round_trip(make_client: MakeClient, redis_url: str) -> None:
    """Answers come in the order of the commands, errors in their places; the connection is good afterwards."""
    client = make_client(redis_url)
    answers = client.ask_many([pack(b"SET", b"k", b"v"), pack(b"LPUSH", b"k", b"1"), pack(b"GET", b"k")])

    assert (answers[0], answers[2]) == (b"OK", b"v")
    assert isinstance(answers[1], redis.ResponseError)
    assert echo(client, b"mine") == b"mine"
    assert client.ask_many([]) == []


@pytest.mark.parametrize(
    "answer",
    [
        b"$3\r\nabcd\r\n",
        b"$3\r\nabc\r\n+OK\r\n",
        b"?\r\n",
        b"$x\r\n\r\n",
        b":1\r\n:2\r\n",
        b"*2\r\n:1\r\n",
        b"*1\r\n" * 100_000,
        b"*99999999999\r\n",
    ],
)
def test_damaged_answers_are_errors(make_client: MakeClient, answer: bytes) -> None:
    """Bytes that are no answer are a failure that the breaker knows, never a value."""
    with server(answer) as url, pytest.raises((redis.RedisError, ValueError)):
        echo(make_client(url, max_retries=0), b"x")


def test_a_connection_that_ends_in_an_answer_is_tried_again_once(make_client: MakeClient) -> None:
    """Cut off in the middle, the command is sent once more; cut off again, it has failed."""
    with server(b"$5\r\nhel", b"$5\r\nhello\r\n") as url:
        assert echo(make_client(url), b"hello") == b"hello"
    with server(b"$5\r\nhel", b"$5\r\nhe") as url, pytest.raises(redis.ConnectionError):
        echo(make_client(url), b"hello")


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_a_restart_is_not_noticed(make_client: MakeClient, valkey: Valkey, retries: int) -> None:
    """Idle connections that died are replaced before anything is sent, also without retries."""
    client = make_client(valkey.url, max_retries=retries)
    assert echo(client, b"1") == b"1"
    valkey.stop()
    valkey.start()

    assert echo(client, b"2") == b"2"
    assert client.get("x") is None


@pytest.mark.alone
def test_a_late_answer_is_nobodys(make_client: MakeClient, valkey: Valkey) -> None:
    """After a timeout the connection is closed: the next one does not read the answer that comes late."""
    client = make_client(valkey.url, pool_size=1)
    assert echo(client, b"first") == b"first"
    valkey.pause()
    began = time.perf_counter()
    with pytest.raises(redis.TimeoutError):
        echo(client, b"late")
    assert time.perf_counter() - began < 0.19  # a timeout is not tried again

    valkey.resume()
    assert echo(client, b"mine") == b"mine"


def test_an_answer_that_comes_with_the_next_command_is_nobodys(make_client: MakeClient) -> None:
    """Even when nothing is there to read at first: the connection of the timeout is gone."""
    listener = create_server(("127.0.0.1", 0))

    def serve() -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(4096)
            if peer.recv(4096):  # the next command on the same connection
                peer.sendall(b"$4\r\nlate\r\n")
                return
        peer, _ = listener.accept()
        with peer:
            peer.recv(4096)
            peer.sendall(b"$4\r\nmine\r\n")

    thread = threading.Thread(target=serve)
    thread.start()
    client = make_client(f"redis://127.0.0.1:{listener.getsockname()[1]}/0")
    with pytest.raises(redis.TimeoutError):
        echo(client, b"late")
    assert echo(client, b"mine") == b"mine"
    thread.join(5)
    listener.close()


@pytest.mark.alone
def test_an_answer_byte_by_byte_has_an_end(make_client: MakeClient) -> None:
    """Each byte comes in time, the whole does not: it is given up after three times the limit."""
    listener = create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def serve() -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(4096)
            peer.sendall(b"$40\r\n")
            for _ in range(40):
                if stop.wait(0.05):
                    return
                peer.sendall(b"x")

    thread = threading.Thread(target=serve)
    thread.start()
    began = time.perf_counter()
    with pytest.raises(redis.TimeoutError):
        echo(make_client(f"redis://127.0.0.1:{listener.getsockname()[1]}/0"), b"x")
    assert time.perf_counter() - began < 0.6
    stop.set()
    thread.join(5)
    listener.close()


class Sleeper:
    """A connection's socket whose time limit ends late, as for a process that was not running."""

    def __init__(self, real: Any, seconds: float) -> None:
        self._real = real
        self._seconds = seconds
        self._slept = False

    def recv(self, size: int) -> bytes:
        if self._slept:
            return bytes(self._real.recv(size))
        self._slept = True
        time.sleep(self._seconds)
        raise TimeoutError

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def sleepy(client: LeanClient, seconds: float) -> None:
    """Let the next answer be looked for so many seconds later."""
    connection: Any = client.connection_pool.get_connection()
    connection._sock = Sleeper(connection._sock, seconds)
    client.connection_pool.release(connection)


def test_an_answer_that_was_there_in_time(make_client: MakeClient, redis_url: str) -> None:
    """A process that looked too late takes the answer that lies there."""
    client = make_client(redis_url)
    assert echo(client, b"first") == b"first"
    sleepy(client, 0.12)

    assert echo(client, b"mine") == b"mine"


def test_a_process_that_was_not_running_is_told_from_a_slow_redis(make_client: MakeClient, valkey: Valkey) -> None:
    """A wait of several times its limit is an error of its own; one of about its limit is Redis's."""
    client = make_client(valkey.url)
    kinds = []
    for seconds in (0.3, 0.11):
        valkey.resume()
        assert echo(client, b"x") == b"x"
        sleepy(client, seconds)
        valkey.pause()
        with pytest.raises(redis.TimeoutError) as caught:
            echo(client, b"x")
        kinds.append(caught.type)
    valkey.resume()

    assert kinds == [Starved, redis.TimeoutError]


@pytest.mark.alone
def test_an_answer_in_drops_has_an_end(
    make_client: MakeClient, valkey: Valkey, fault_proxy: StartFaultProxy
) -> None:
    """Byte after byte within the time limit is still too long in all."""
    proxy = fault_proxy(valkey.port)
    client = make_client(f"redis://127.0.0.1:{proxy.port}/0")
    assert echo(client, b"x") == b"x"
    proxy.set("throttle 1")
    began = time.perf_counter()
    with pytest.raises(redis.RedisError):
        echo(client, b"x" * 500)
    assert time.perf_counter() - began < 0.45


def test_threads_share_few_connections(make_client: MakeClient, valkey: Valkey) -> None:
    """Sixteen threads on two connections: each gets its own answers, and nobody is left waiting."""
    client = make_client(valkey.url, pool_size=2, connect_timeout=5.0, read_timeout=5.0)
    wrong: list[object] = []

    def talk(name: bytes) -> None:
        for number in range(200):
            text = name + b"%d" % number
            answer = echo(client, text) if number % 3 else client.echo(text)
            if answer != text:
                wrong.append((text, answer))

    threads = [threading.Thread(target=talk, args=(b"%d:" % n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert not wrong
    assert not any(thread.is_alive() for thread in threads)
    assert len(client.client_list()) <= 3


@pytest.mark.alone
def test_a_waiting_thread_gets_the_connection_that_comes_back(make_client: MakeClient, redis_url: str) -> None:
    """With all connections in use a request waits for one; when none comes it fails in time."""
    pool = make_client(redis_url, pool_size=1, connect_timeout=0.5).connection_pool
    held = pool.get_connection()
    threading.Timer(0.1, pool.release, (held,)).start()
    began = time.perf_counter()
    again = pool.get_connection()
    assert again is held
    assert time.perf_counter() - began < 0.4

    with pytest.raises(redis.ConnectionError, match="No connection"):
        pool.get_connection()
    pool.release(again)
    assert pool.get_connection() is held
    pool.release(held)


def test_a_fork_shares_no_connection(make_client: MakeClient, redis_url: str) -> None:
    """A child has connections of its own, with the kit's hook and without."""
    client = make_client(redis_url)
    mine = client.ask(pack(b"CLIENT", b"ID"))
    for renewed in (True, False):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                if renewed:
                    renew(client)
                code = 0 if client.ask(pack(b"CLIENT", b"ID")) != mine else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert client.ask(pack(b"CLIENT", b"ID")) == mine
