"""TLS in front of a PostgreSQL that was built without it: answers the client's SSLRequest, then passes on."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from typing import Self

from tests.servers import HOST

_REQUEST = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")


class TlsFront:
    """Listens on a free port with a certificate, or refuses TLS as a server without one does."""

    def __init__(self, upstream: int, context: ssl.SSLContext | None) -> None:
        self._upstream = upstream
        self._context = context
        self._listener = socket.create_server((HOST, 0))
        self._threads: list[threading.Thread] = []
        self.encrypted = 0
        self.port = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        self._begin(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)

    def _begin(self, call: object, *args: object) -> threading.Thread:
        thread = threading.Thread(target=call, args=args, name="tls-front", daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._begin(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        """Speak the first words of the protocol, then copy both ways until one side ends."""
        with suppress(OSError), socket.create_connection((HOST, self._upstream), 5) as server:
            first = client.recv(8, socket.MSG_WAITALL)
            if first == _REQUEST and self._context is not None:
                client.sendall(b"S")
                client = self._context.wrap_socket(client, server_side=True)
                self.encrypted += 1
            elif first == _REQUEST:
                client.sendall(b"N")
            else:
                server.sendall(first)
            back = self._begin(_copy, server, client)
            _copy(client, server)
            back.join(5)
        client.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
