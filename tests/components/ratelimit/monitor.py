"""What clients send to a server."""

from __future__ import annotations

import socket

from tests.servers import Valkey


class Monitor:
    """Keeps what clients send to a server while it is open; what scripts do inside is left out."""

    def __init__(self, server: Valkey) -> None:
        self.lines: list[bytes] = []
        self._socket = socket.create_connection(("127.0.0.1", server.port), 5)
        self._file = self._socket.makefile("rb")
        self._socket.sendall(b"MONITOR\r\n")
        assert self._file.readline() == b"+OK\r\n"

    def commands(self, server: Valkey) -> list[bytes]:
        """Return the commands so far."""
        server.command("ECHO", "the end")
        while b"the end" not in (line := self._file.readline()):
            if b" lua]" not in line:
                self.lines.append(line.split(b"] ", 1)[1].split(b" ")[0].strip(b'"\r\n'))
        return self.lines

    def close(self) -> None:
        self._file.close()
        self._socket.close()
