"""The application that a trap is sprung on, composed by the kit or by hand from the same few words."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeVar

from flask import Flask
from flask_cors import cross_origin
from prometheus_client.parser import text_string_to_metric_families
from werkzeug.test import TestResponse

from bench.by_hand import Choices, by_hand
from flask_prod import ProdKit

Samples: TypeAlias = dict[tuple[str, frozenset[tuple[str, str]]], float]

ViewT = TypeVar("ViewT", bound=Callable[..., Any])

DESCRIPTION = "TRAP_SHOP"
"""The variable in which a server of its own finds what to compose."""

HEALTH = "/healthz"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a row asks for, said once for both compositions, and what only one of them has a word for."""

    name: str = "shop"
    redis_url: str | None = None
    hops: int = 0
    limit: int | None = None
    """Requests a minute for every client."""

    origins: Sequence[str] | None = None
    sentry_dsn: str | None = None
    kit: Mapping[str, Any] = field(default_factory=dict)
    """Further settings of the kit."""

    by_hand: Mapping[str, Any] = field(default_factory=dict)
    """Further `Choices` of the composition by hand; these win."""


class Decorate(Protocol):
    """Takes options, and gives a decorator of views."""

    def __call__(self, *args: Any, **options: Any) -> Callable[[ViewT], ViewT]:
        """Give it."""


class Limiting(Protocol):
    """What the traps use of Flask-Limiter."""

    limit: Decorate

    def exempt(self, view: ViewT) -> ViewT:
        """Spare a view."""


class Caching(Protocol):
    """What the traps use of Flask-Caching."""

    cached: Decorate


class Measuring(Protocol):
    """What the traps use of the exporter."""

    counter: Decorate


class Shop:
    """One application, the libraries' decorators for its views, and visits to it."""

    cross_origin: Decorate = staticmethod(cross_origin)

    def __init__(self, app: Flask, limiter: Any, cache: Any, metrics: Any) -> None:
        self.app = app
        self.limiter: Limiting = limiter
        self.cache: Caching = cache
        self.metrics: Measuring = metrics

    def visit(
        self,
        path: str = "/",
        method: str = "GET",
        *,
        scheme: str = "https",
        host: str = "shop.example",
        address: str = "127.0.0.1",
        body: Mapping[str, Any] | None = None,
        **headers: str,
    ) -> TestResponse:
        """Send one request, without cookies; `X_Forwarded_For="..."` is a header."""
        return self.app.test_client(use_cookies=False).open(
            path,
            method=method,
            base_url=f"{scheme}://{host}",
            json=body,
            headers={name.replace("_", "-"): value for name, value in headers.items()},
            environ_overrides={"REMOTE_ADDR": address},
            buffered=True,
        )

    def statuses(self, count: int, path: str = "/", **how: Any) -> list[int]:
        """Return the statuses of so many visits."""
        return [self.visit(path, **how).status_code for _ in range(count)]

    def preflight(self, path: str = "/", origin: str = "https://app.example.com", **how: Any) -> TestResponse:
        """Ask as a browser does before a script sends JSON."""
        return self.visit(path, "OPTIONS", Origin=origin, Access_Control_Request_Method="GET", **how)

    def scrape(self) -> Samples:
        """Return what /metrics says."""
        answer = self.visit("/metrics")
        assert answer.status_code == 200, f"/metrics is answered {answer.status_code}"
        return samples(answer.text)


def samples(text: str) -> Samples:
    """Read the text that Prometheus scrapes."""
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def total(found: Samples, name: str, **labels: str) -> float:
    """Add up all series of a name that have these labels."""
    wanted = set(labels.items())
    return sum(value for (one, its), value in found.items() if one == name and wanted <= its)


def open_by_hand(wanted: Wanted) -> Shop:
    """Compose the libraries as their READMEs say; the health endpoint is exempt, as Flask-Limiter's says."""
    own = dict(wanted.by_hand)
    choices: dict[str, Any] = {"name": wanted.name, "hops": wanted.hops}
    if wanted.limit:
        choices["limits"] = [f"{wanted.limit} per minute"]
    if wanted.origins is not None:
        choices["cors"] = {"origins": list(wanted.origins)}
    if wanted.sentry_dsn:
        choices["sentry"] = {"dsn": wanted.sentry_dsn, **own.pop("sentry", {})}
    if wanted.redis_url:
        choices["cache"] = {"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": wanted.redis_url}
        choices["limiter"] = {"storage_uri": wanted.redis_url, **own.pop("limiter", {})}
    parts = by_hand(Choices(**{**choices, **own}))
    parts.app.add_url_rule(HEALTH, "healthz", parts.limiter.exempt(lambda: "healthy"))
    return Shop(parts.app, parts.limiter, parts.cache, parts.metrics)


def settings(wanted: Wanted) -> dict[str, Any]:
    """Return the kit's settings: those of production, and what the row asks for."""
    chosen: dict[str, Any] = {
        "ENVIRONMENT": "production",
        "HEALTH_PATH": HEALTH,
        "TRUSTED_PROXIES": wanted.hops,
        "RATE_LIMIT_PUBLIC": wanted.limit or "",
    }
    if wanted.origins is not None:
        chosen["ALLOWED_ORIGINS"] = list(wanted.origins)
    if wanted.redis_url:
        chosen["REDIS_URL"] = wanted.redis_url
    if wanted.sentry_dsn:
        chosen["SENTRY_DSN"] = wanted.sentry_dsn
    return chosen | dict(wanted.kit)


def open_with_kit(wanted: Wanted) -> Shop:
    """Compose by one ProdKit."""
    prod = ProdKit()
    app = Flask(wanted.name)
    app.config.update(settings(wanted))
    prod.init_app(app)
    return Shop(app, prod.limiter, prod.cache, prod.metrics)


def described() -> Shop:
    """Compose what the test that started this server described."""
    description = json.loads(os.environ[DESCRIPTION])
    wanted = Wanted(**description["wanted"])
    return open_by_hand(wanted) if description["by_hand"] else open_with_kit(wanted)
