"""When certificates end: what the server serves, and what checks of this service are shown, in one gauge."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

SERVED = "served"
"""The label of the certificate in TLS_CERT_FILE; others have the name of the check that saw them."""


CERTIFICATES: tuple[str, str, tuple[str, ...]] = (
    "flask_prod_certificate_expiry_timestamp_seconds",
    "When a certificate ends, in seconds since 1970: the one that is served, and those that health checks see",
    ("certificate",),
)
"""Name, documentation and labels of the gauge."""


def end_of(certificate: Mapping[str, Any] | None) -> float | None:
    """Return when a certificate ends, as `getpeercert` tells of it; None where it does not."""
    try:
        return float(ssl.cert_time_to_seconds((certificate or {})["notAfter"]))
    except (KeyError, ValueError):
        return None
