"""The kit's own endpoint for Content-Security-Policy reports: counts them, and logs a few."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec
from flask import request
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge
from werkzeug.wrappers import Response

from flask_prod.core.ports import Meter

logger = logging.getLogger(__name__)

_LARGEST = 64 * 1024
_MOST_REPORTS = 50
_LOG_EVERY = 60.0
_DIRECTIVES = frozenset(
    {
        "base-uri", "child-src", "connect-src", "default-src", "font-src", "form-action", "frame-ancestors",
        "frame-src", "img-src", "manifest-src", "media-src", "object-src", "sandbox", "script-src",
        "script-src-attr", "script-src-elem", "style-src", "style-src-attr", "style-src-elem", "worker-src",
        "require-trusted-types-for", "trusted-types",
    }
)  # fmt: skip
"""What a label may be: anybody can send reports, and must not be able to make metrics grow."""


class ReportSink:
    """Takes reports in both formats browsers send: `report-uri` and the Reporting API."""

    def __init__(self, meter: Meter, clock: Callable[[], float] = time.monotonic) -> None:
        self._counter = meter.counter(
            "flask_prod_csp_reports_total", "Content-Security-Policy reports, by directive.", ("directive",)
        )
        self._clock = clock
        self._logged: dict[str, float] = {}

    def view(self) -> Response:
        """Answer 204, whatever the report says; 413 and 400 to what is no report."""
        if (request.content_length or 0) > _LARGEST:
            raise RequestEntityTooLarge
        request.max_content_length = _LARGEST
        try:
            reports = tuple(read_reports(msgspec.json.decode(request.get_data())))
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
            raise BadRequest("This is not a Content-Security-Policy report.") from error
        for report in reports[:_MOST_REPORTS]:
            self._take(report)
        return Response(status=204)

    def _take(self, report: Mapping[str, Any]) -> None:
        named = str(report.get("effective-directive") or report.get("violated-directive") or "").partition(" ")[0]
        directive = named if named in _DIRECTIVES else "other"
        self._counter.inc(directive)
        now = self._clock()
        if now - self._logged.get(directive, -_LOG_EVERY) >= _LOG_EVERY:
            self._logged[directive] = now
            logger.warning("CSP %s blocked %s on %s", directive, *(_place(report, key) for key in _PLACES))


_PLACES = ("blocked-uri", "document-uri")
_MODERN = {"effectiveDirective": "effective-directive", "blockedURL": "blocked-uri", "documentURL": "document-uri"}


def read_reports(decoded: object) -> Iterator[Mapping[str, Any]]:
    """Yield the reports of a decoded body with the names of the older format; ValueError when it has none."""
    if isinstance(decoded, dict) and isinstance(decoded.get("csp-report"), dict):
        yield decoded["csp-report"]
        return
    if not isinstance(decoded, list):
        raise ValueError("neither format")
    for item in decoded:
        body = item.get("body") if isinstance(item, dict) and item.get("type") == "csp-violation" else None
        if isinstance(body, dict):
            yield {_MODERN.get(str(key), str(key)): value for key, value in body.items()}


def _place(report: Mapping[str, Any], key: str) -> str:
    """Return an address without its query, which may hold secrets, fit for one line of a log."""
    try:
        parts = urlsplit(str(report.get(key, ""))[:500])
    except ValueError:
        return "?"
    text = f"{parts.scheme}://{parts.hostname}{parts.path}" if parts.hostname else parts.path
    return ascii(text[:200])
