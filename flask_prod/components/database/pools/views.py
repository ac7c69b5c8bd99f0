"""`/debug/pool`: the pools of the process that answers, for who sends OPS_TOKEN."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response

from flask_prod.core.gate import Gate
from flask_prod.core.record import RequestRecord

PATH = "/debug/pool"

EVERY = 5.0
"""Seconds between two rounds of upkeep: as fresh as a scrape wants it."""


class PoolPage:
    """Answers before Flask is entered: it is looked at when every thread waits for a connection."""

    def __init__(self, gate: Gate, page: Callable[[], Mapping[str, Any]]) -> None:
        self._gate = gate
        self._page = page

    def ask(self, record: RequestRecord) -> Response | NotFound | None:
        """Answer; who may not see it learns nothing, not even that it is there."""
        if record.path != PATH or record.method not in ("GET", "HEAD"):
            return None
        record.operational = True
        if not self._gate.admits(record.environ.get("HTTP_AUTHORIZATION", "")):
            return NotFound()
        record.endpoint = record.route = PATH
        body = msgspec.json.encode(self._page())
        return Response(body, headers={"Cache-Control": "no-store"}, mimetype="application/json")
