"""What can be set about proxies beside TRUSTED_PROXIES and ALLOWED_HOSTS, which belong to the service."""

from __future__ import annotations

from typing import Literal

from flask_prod.core.settings import Section


class ProxySettings(Section, frozen=True, kw_only=True):
    """Which headers the trusted proxies write."""

    forwarded_headers: tuple[Literal["for", "proto", "host", "port"], ...] = ("for", "proto", "host", "port")
    """The X-Forwarded headers that every trusted proxy sets itself; one that yours passes on must not be here."""
