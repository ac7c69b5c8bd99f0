"""Small servers that speak the first bytes of a protocol, as recorded from its description.

Brokers and databases that cannot be installed for a test: what is proven is that the question is framed as the
protocol says, and that answers of its form, and nonsense, are understood.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeAlias

Talk: TypeAlias = Callable[[socket.socket], None]


@contextmanager
def talker(talk: Talk, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Serve each connection by *talk*, one after the other; give the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        stopping = threading.Event()

        def serve() -> None:
            while not stopping.is_set():
                with suppress(OSError, ssl.SSLError):
                    connection, _ = server.accept()
                    connection.settimeout(5)
                    if context is not None:
                        connection = context.wrap_socket(connection, server_side=True)
                    with connection:
                        if not stopping.is_set():
                            talk(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            stopping.set()
            with suppress(OSError):
                socket.create_connection(server.getsockname(), 1).close()
            thread.join(10)


def saying(answer: bytes) -> Talk:
    """Answer whatever comes with these bytes."""

    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(answer)

    return talk


def kafka(connection: socket.socket) -> None:
    """Answer ApiVersions of version 0, and nothing else."""
    (size,) = struct.unpack(">i", _exactly(connection, 4))
    request = _exactly(connection, size)
    key, version, correlation, length = struct.unpack_from(">hhih", request)
    if (key, version, len(request)) == (18, 0, 10 + length):
        apis = b"".join(struct.pack(">hhh", api, 0, 9) for api in (0, 1, 3, 18))
        body = struct.pack(">ihi", correlation, 0, 4) + apis
        connection.sendall(struct.pack(">i", len(body)) + body)


def mongodb(connection: socket.socket) -> None:
    """Answer `hello` by OP_MSG, with the kinds of field that a server sends."""
    size, request, _, code = struct.unpack("<iiii", _exactly(connection, 16))
    body = _exactly(connection, size - 16)
    if code != 2013 or b"\x10hello\0\x01\0\0\0" not in body or b"\x02$db\0\x06\0\0\0admin\0" not in body:
        return
    fields = (
        b"\x08isWritablePrimary\0\x01\x10maxWireVersion\0\x15\0\0\0\x09localTime\0" + bytes(8)
        + b"\x07id\0" + bytes(12) + b"\x04compression\0\x05\0\0\0\0\x12connectionId\0" + bytes(8)
        + b"\x02me\0\x03\0\0\0ab\0\x0anone\0\x05bin\0\x02\0\0\0\0xy\x01ok\0" + struct.pack("<d", 1.0)
    )  # fmt: skip
    document = struct.pack("<i", len(fields) + 5) + fields + b"\0"
    answer = struct.pack("<IB", 0, 0) + document
    connection.sendall(struct.pack("<iiii", 16 + len(answer), 9, request, 2013) + answer)


def rabbitmq(connection: socket.socket) -> None:
    """Answer the header of AMQP 0-9-1 with Connection.Start."""
    if _exactly(connection, 8) == b"AMQP\0\0\x09\x01":
        texts = b"".join(struct.pack(">I", len(text)) + text for text in (b"PLAIN AMQPLAIN", b"en_US"))
        method = struct.pack(">HHBBI", 10, 10, 0, 9, 0) + texts
        connection.sendall(struct.pack(">BHI", 1, 0, len(method)) + method + b"\xce")


def smtp(connection: socket.socket) -> None:
    """Greet, and answer EHLO, NOOP and QUIT."""
    connection.sendall(b"220 mail ESMTP\r\n")
    with connection.makefile("rb") as lines:
        for line in lines:
            word = line.split()[0].upper() if line.split() else b""
            if word == b"QUIT":
                connection.sendall(b"221 bye\r\n")
                return
            connection.sendall(b"250-mail\r\n250 SIZE 1000\r\n" if word == b"EHLO" else b"250 ok\r\n")


def _exactly(connection: socket.socket, count: int) -> bytes:
    content = b""
    while len(content) < count:
        more = connection.recv(count - len(content))
        if not more:
            raise OSError("ended")
        content += more
    return content
