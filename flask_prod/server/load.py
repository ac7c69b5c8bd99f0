"""A bounded load on one or more addresses, by clients that choose among those a balancer would choose from.

Each connection goes to one address, chosen when it is opened, as behind Kubernetes' services or any balancer of
connections: an instance that is no longer ready loses new connections some time later, and those it has when it
says so. No request is sent twice.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

HOST = "127.0.0.1"
_PATIENCE = 15.0
"""Seconds after which a client takes its request for lost."""

_LOOK = 0.1
"""Seconds between two looks at an instance's readiness."""

_TWICE = 2
"""Good answers in a row after which an instance is given to clients again."""

_KEPT = 20
"""So many lost requests are told one by one."""


class Rotation:
    """The ports that clients are sent to: those whose readiness probe answers 200, told with a lag.

    A port that stops being ready is given to clients for *lag* seconds more, as balancers do that look every so
    often; one that is ready again is taken at the second good answer. Without a path each port stays.
    """

    def __init__(self, ports: Sequence[int], path: str | None, lag: float = 1.0) -> None:
        self._all = tuple(ports)
        self._path = path
        self._lag = lag
        self._good: Counter[int] = Counter()
        self._leaving: dict[int, float] = {}
        self._turn = 0
        self.ports: tuple[int, ...] = self._all
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="rotation", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def next(self) -> int:
        """Return the port for a new connection; in turns, so that each instance has its share."""
        ports = self.ports or self._all
        self._turn += 1  # a race between threads changes nobody's luck
        return ports[self._turn % len(ports)]

    def _follow(self) -> None:
        while self._path is not None and not self._end.wait(_LOOK):
            self.ports = tuple(port for port in self._all if self._takes(port, status(port, self._path) == 200))

    def _takes(self, port: int, ready: bool) -> bool:
        """Say whether clients are sent to this port, by what its probe said last."""
        self._good[port] = self._good[port] + 1 if ready else 0
        if ready:
            self._leaving.pop(port, None)
            return port in self.ports or self._good[port] >= _TWICE
        leaves = self._leaving.setdefault(port, time.monotonic() + self._lag)
        return port in self.ports and time.monotonic() < leaves


@dataclass
class Tally:
    """What became of the requests; `lost` are those without a whole answer, or answered with 500 and more."""

    requests: int = 0
    lost: int = 0
    slowest: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    told: list[str] = field(default_factory=list)

    def add(self, seconds: float, status: int, why: str) -> None:
        """Count one request; *status* is 0 and *why* says what happened where there was no whole answer."""
        self.requests += 1
        self.slowest = max(self.slowest, seconds)
        self.statuses[status] += 1
        if status == 0 or status >= 500:
            self.lost += 1
            if len(self.told) < _KEPT:
                self.told.append(why)


class Load:
    """Clients that ask again as soon as they are answered, while the `with` block runs.

    Every other client keeps its connection, the others open one for each request.
    """

    def __init__(
        self, rotation: Rotation, paths: Sequence[str] = ("/",), clients: int = 8, pause: float = 0.0
    ) -> None:
        self._rotation = rotation
        self._paths = tuple(paths)
        self._pause = pause
        self._end = threading.Event()
        self._began = time.monotonic()
        self._tallies = [Tally() for _ in range(clients)]
        self._threads = [
            threading.Thread(target=self._come, args=(number, tally), name=f"client-{number}", daemon=True)
            for number, tally in enumerate(self._tallies)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    @property
    def tally(self) -> Tally:
        """What became of all requests so far."""
        whole = Tally()
        for one in self._tallies:
            whole.requests += one.requests
            whole.lost += one.lost
            whole.slowest = max(whole.slowest, one.slowest)
            whole.statuses.update(dict(one.statuses))
            whole.told += one.told
        return whole

    def _come(self, number: int, tally: Tally) -> None:
        connection, keep = None, number % 2 == 0
        for path in self._ways(number):
            port = self._rotation.next() if connection is None else connection.port
            connection = connection or http.client.HTTPConnection(HOST, port, timeout=_PATIENCE)
            fresh, began = connection.sock is None, time.monotonic()
            code, why = _ask(connection, path)
            at, kind = began - self._began, "new" if fresh else "kept"
            tally.add(time.monotonic() - began, code, f"after {at:.1f} s, {path} on a {kind} connection: {why}")
            if not keep or connection.sock is None:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def _ways(self, number: int) -> Iterator[str]:
        while not self._end.is_set():
            yield self._paths[number % len(self._paths)]
            number += 1
            if self._pause:
                time.sleep(self._pause)


def status(port: int, path: str, timeout: float = 2.0) -> int:
    """Return the status that a server on loopback answers with; 0 without an answer."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout)
    code, _ = _ask(connection, path)
    connection.close()
    return code


def _ask(connection: http.client.HTTPConnection, path: str) -> tuple[int, str]:
    """Send one request; return its status and how it is told. The connection is closed when it cannot be kept."""
    try:
        connection.request("GET", path, headers={"Host": "localhost"})
        response = connection.getresponse()
        response.read()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return 0, f"{type(error).__name__}: {error}"
    return response.status, f"status {response.status}"
