"""What can be set about rate limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from msgspec import Meta, field

from flask_prod.core.settings import Section
from flask_prod.core.values import Duration

from .clients import read_networks
from .policy import MAX_POINTS, MAX_WINDOW, parse_policy


class RateLimitSettings(Section, frozen=True, kw_only=True):
    """How often a client may come, and what holds while Redis is away."""

    prefix: ClassVar[str] = "RATE_LIMIT_"
    library_keys: ClassVar[tuple[str, ...]] = ("RATELIMIT_*",)
    live: ClassVar[tuple[str, ...]] = ("public", "authenticated", "window", "policies", "exempt")

    enabled: bool = True
    """False limits nothing, in the kit and in Flask-Limiter."""

    public: Annotated[int, Meta(ge=1, le=MAX_POINTS)] | None = 100
    """Requests of one address in a window, over the whole application; empty means no such limit."""

    authenticated: Annotated[int, Meta(ge=1, le=MAX_POINTS)] | None = 500
    """Requests of one known user in a window, in place of the limit by address; empty means no such limit."""

    window: Duration = 60.0
    """The window of the two limits above, in seconds; it slides."""

    policies: Mapping[str, str] = field(default_factory=dict)
    """Policies by name: `checkout=10/10m; login=5/15m block 1h`; an empty one switches that policy off."""

    fail: Literal["local", "open", "closed"] = "local"
    """While Redis is away: count in this process (local), let pass (open), or answer 503 (closed)."""

    shadow: bool = False
    """True counts and reports what would be refused, by every policy and by Flask-Limiter, and refuses nobody."""

    exempt: tuple[str, ...] = ()
    """Addresses and networks that are never limited: `10.0.0.0/8,192.0.2.7`."""

    key_headers: tuple[str, ...] = ("X-API-Key", "Authorization")
    """Where policies that count `by key` find an API key: the first of these headers that a request has."""

    lease: Annotated[int, Meta(ge=0, le=1000)] = 0
    """Most points that a process takes from Redis ahead for a client who comes often; 0 asks for every request."""

    def problems(self) -> Iterator[str]:
        """Yield each policy that cannot be understood, and a window out of range."""
        if not 1 <= self.window <= MAX_WINDOW:
            yield f"RATE_LIMIT_WINDOW must be from 1s to 31d, not {self.window:g} seconds."
        for name, rule in self.policies.items():
            try:
                parse_policy(name, rule)
            except ValueError as error:
                yield f"RATE_LIMIT_POLICIES: {error}"
        for text in self.exempt:
            try:
                read_networks([text])
            except ValueError as error:
                yield f"RATE_LIMIT_EXEMPT: {error}"
