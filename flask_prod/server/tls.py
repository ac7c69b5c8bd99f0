"""https by the server itself: what is wrong with certificate and key, and what gunicorn needs for them."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from flask_prod.core.certificate import CERTIFICATES, SERVED, end_of

Factory: TypeAlias = Callable[[], ssl.SSLContext]

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_SOON = 7 * 86400.0
"""Seconds before its end at which a certificate is worth a warning."""


class Asked(Protocol):
    """What is asked of the settings."""

    @property
    def tls_enabled(self) -> bool:
        """Whether https is served."""

    @property
    def tls_cert_file(self) -> str:
        """Where the certificate is."""

    @property
    def tls_key_file(self) -> str:
        """Where its key is."""

    @property
    def tls_min_version(self) -> str:
        """1.2 or 1.3."""


def problems(certificate: str, key: str) -> Iterator[str]:
    """Yield what is wrong with the two files, one sentence for each."""
    found = [*_unreadable("TLS_CERT_FILE", certificate), *_unreadable("TLS_KEY_FILE", key)]
    if found:
        yield from found
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=_no_password)
    except _Locked:
        yield "TLS_KEY_FILE needs a password: a server starts unattended, so store the key without one."
    except ssl.SSLError as error:
        if "MISMATCH" in str(error.reason):
            yield "TLS_KEY_FILE is not the key of the certificate in TLS_CERT_FILE."
        else:
            yield "TLS_CERT_FILE and TLS_KEY_FILE must be a certificate with its chain, and its key, both in PEM."


def warnings(settings: Asked) -> Iterator[str]:
    """Yield what is about to be wrong: a certificate near its end, or past it."""
    ends = ending(settings.tls_cert_file) if settings.tls_enabled else None
    if ends is None:
        return
    left = ends - time.time()
    if left <= 0:
        yield "The certificate in TLS_CERT_FILE has expired: clients refuse it."
    elif left < _SOON:
        yield f"The certificate in TLS_CERT_FILE expires in {left / 86400:.1f} days; SIGHUP takes up a new one."


def show(worker: object, settings: Asked) -> None:
    """Show when the certificate ends that a worker has just read, in the metrics of the application it serves."""
    kit = getattr(getattr(worker, "wsgi", None), "extensions", {}).get("prod")
    contribution = kit.contributions.get("metrics") if kit is not None else None
    ends = ending(settings.tls_cert_file) if settings.tls_enabled else None
    if contribution is not None and contribution.meter is not None and ends is not None:
        contribution.meter.gauge(*CERTIFICATES).set(ends, SERVED)


def values(settings: Asked) -> dict[str, Any]:
    """Return gunicorn's settings for https; none without it."""
    if not settings.tls_enabled:
        return {}
    return {
        "certfile": settings.tls_cert_file,
        "keyfile": settings.tls_key_file,
        "ssl_context": _hook(_VERSIONS[settings.tls_min_version]),
    }


def _hook(oldest: ssl.TLSVersion) -> Callable[[object, Factory], ssl.SSLContext]:
    made: list[ssl.SSLContext] = []

    def ssl_context(_config: object, factory: Factory) -> ssl.SSLContext:
        # Made once in each worker: gunicorn would read both files for every connection, the new certificate
        # with the old key among them, and no session could be resumed.
        if not made:
            context = factory()
            context.minimum_version = oldest
            made.append(context)
        return made[0]

    return ssl_context


class _Locked(Exception):
    """The key has a password."""


def _no_password() -> str:
    raise _Locked


def _unreadable(name: str, path: str) -> Iterator[str]:
    if not path:
        yield f"{name} must be set when TLS_ENABLED is on."
        return
    try:
        Path(path).read_bytes()
    except OSError as error:
        yield f"{name} {path!r} cannot be read: {error.strerror or type(error).__name__}."


def ending(path: str) -> float | None:
    """Return when the first certificate of a file ends; None where this Python does not say."""
    try:
        return end_of(ssl._ssl._test_decode_cert(path))  # type: ignore[attr-defined]
    except Exception:
        return None
