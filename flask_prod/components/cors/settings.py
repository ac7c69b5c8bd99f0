"""What can be set about CORS; the library's own names for the same things are understood too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from flask_prod.core.settings import Section
from flask_prod.core.values import Duration

EXPOSED = (
    "RateLimit", "RateLimit-Policy", "Retry-After", "X-RateLimit-Limit", "X-RateLimit-Remaining",
    "X-RateLimit-Reset", "X-Request-ID",
)  # fmt: skip
"""What the kit adds to answers and scripts have a use for."""


class CorsSettings(Section, frozen=True, kw_only=True):
    """Whom to answer, and what they may send and read."""

    prefix: ClassVar[str] = "CORS_"
    keys: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "origins": ("ALLOWED_ORIGINS", "CORS_ORIGIN", "CORS_ORIGINS"),
        "credentials": ("CORS_CREDENTIALS", "CORS_SUPPORTS_CREDENTIALS"),
        "allowed_headers": ("CORS_ALLOWED_HEADERS", "CORS_ALLOW_HEADERS"),
        "exposed_headers": ("CORS_EXPOSED_HEADERS", "CORS_EXPOSE_HEADERS"),
    }
    library_keys: ClassVar[tuple[str, ...]] = (
        "CORS_SEND_WILDCARD", "CORS_AUTOMATIC_OPTIONS", "CORS_INTERCEPT_EXCEPTIONS", "CORS_ALWAYS_SEND",
    )  # fmt: skip

    live: ClassVar[tuple[str, ...]] = ("origins",)

    origins: tuple[str, ...] = ()
    """Origins whose scripts may read answers: `https://shop.example.com`, `https://*.example.com` for true
    subdomains, `*` for all without credentials; empty allows none."""

    origin_check: Any = None
    """A function of app.config asked about origins on no list: takes the origin, returns true to allow it."""

    credentials: bool = False
    """Let those scripts send cookies and sign-in headers along; not with `*`."""

    methods: tuple[str, ...] = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
    """Methods they may use; a route's own methods limit them further."""

    allowed_headers: tuple[str, ...] = ("*",)
    """Request headers they may send; `*` allows what they ask for."""

    exposed_headers: tuple[str, ...] = EXPOSED
    """Response headers they may read, beside those of the kit."""

    max_age: Duration = 7200
    """How long a browser may remember the answer to a preflight; Chromium's longest is 2 h."""

    resources: Any = None
    """Paths this holds for, by whole segments (`/api/` covers `/api/orders`, not `/apikeys`): one, a list, or a
    mapping of path to options of its own under Flask-CORS's names; empty means every path."""

    allow_private_network: bool = False
    """Let public sites reach this service in a private network (Chromium's Private Network Access)."""

    vary_header: bool = True
    """Whether answers say that they vary by origin; they always do, false is refused."""

    def problems(self) -> Iterator[str]:
        """Yield what would be one of the traps."""
        if not self.vary_header:
            yield "CORS_VARY_HEADER cannot be false: caches would give one site's answer to another. Remove it."
        if self.origin_check is not None and not callable(self.origin_check):
            yield "CORS_ORIGIN_CHECK must be a function of app.config that takes an origin, not text."
