"""A small, bounded load: a few clients that ask again as soon as they are answered."""

from __future__ import annotations

import http.client
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

from tests.servers import HOST, Gunicorn

CaseT = TypeVar("CaseT")

SHORT = float(os.environ.get("FAULTS_SECONDS", "20")) < 10
"""True in the short form, which CI runs."""

CLIENTS = 16
TIMEOUT = 10.0


def in_time(cases: Sequence[CaseT], most: int = 1) -> Sequence[CaseT]:
    """Return the cases of a test that there is time for: in the short form the first, which are the hardest."""
    return cases[:most] if SHORT else cases


@dataclass(frozen=True)
class Visit:
    """One request: when it began (time.monotonic), how long it took, and its status; 0 for none."""

    began: float
    seconds: float
    status: int


class Load:
    """Visits a server by several kept-alive connections while the `with` block runs."""

    def __init__(self, server: Gunicorn, path: str = "/", clients: int = CLIENTS) -> None:
        self._port = server.port
        self._path = path
        self._stop = threading.Event()
        self._visits: list[list[Visit]] = [[] for _ in range(clients)]
        self._threads = [threading.Thread(target=self._come, args=(own,)) for own in self._visits]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def visits(self) -> list[Visit]:
        """All visits, in the order they began."""
        return sorted((visit for own in self._visits for visit in own), key=lambda visit: visit.began)

    def between(self, begin: float, end: float) -> list[Visit]:
        """Return the visits that began in this time."""
        return [visit for visit in self.visits if begin <= visit.began < end]

    def _come(self, own: list[Visit]) -> None:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=TIMEOUT)
        while not self._stop.is_set():
            began = time.monotonic()
            status = self._visit(connection)
            own.append(Visit(began, time.monotonic() - began, status))
        connection.close()

    def _visit(self, connection: http.client.HTTPConnection) -> int:
        try:
            connection.request("GET", self._path)
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            time.sleep(0.01)
            return 0
        return response.status


def success(visits: Sequence[Visit]) -> float:
    """Return the share of visits that were answered 200."""
    return sum(visit.status == 200 for visit in visits) / len(visits)


def percentile(visits: Sequence[Visit], share: float) -> float:
    """Return the seconds that this share of the visits did not exceed."""
    taken = sorted(visit.seconds for visit in visits)
    return taken[min(len(taken) - 1, int(share * len(taken)))]
