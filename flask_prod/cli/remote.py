"""Asks a running service for its health, with a clear answer whatever comes back."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import SplitResult, urlsplit

import click

from flask_prod.core.redaction import redact_text

from .table import printable

LARGEST = 1024 * 1024
"""Bytes of an answer that are read; ours have a few thousand."""

_STATES = ("healthy", "degraded", "unhealthy")


def ask(url: str, path: str, token: str, timeout: float) -> dict[str, Any]:
    """Return what the service at *url* says: details as a dictionary, or the bare word as `status`.

    Redirects are not followed, since the token would go with them. ClickException says what went wrong.
    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        connection = _connection(parts, timeout)
    except ValueError as error:
        typed = redact_text(url)
        raise click.ClickException(
            f"{typed!r} is not an address such as http://127.0.0.1:8000 ({error})."
        ) from error
    target = parts.path if parts.path not in ("", "/") else path
    host = parts.netloc.rpartition("@")[2]
    shown = f"{parts.scheme}://{host}{target}"
    headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    try:
        connection.request("GET", target, headers=headers)
        response = connection.getresponse()
        body = response.read(LARGEST)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise click.ClickException(
            f"{shown} cannot be reached: {reason}. Is the service running, and is this its port?"
        ) from error
    finally:
        connection.close()
    return _understood(shown, response.status, body)


def _connection(parts: SplitResult, timeout: float) -> http.client.HTTPConnection:
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("http or https, and a host")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.hostname, parts.port, timeout=timeout)


def _understood(shown: str, status: int, body: bytes) -> dict[str, Any]:
    text = body.decode("utf-8", "replace").strip()
    if text in _STATES:
        return {"status": text}
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if isinstance(values, dict) and values.get("status") in _STATES:
        return values
    start = printable(text[:60]) or "nothing"
    raise click.ClickException(
        f"{shown} answered {status} with {start!r}, which is not a health report. "
        "HEALTH_PATH must be what the service has, and a redirect is not followed."
    )
