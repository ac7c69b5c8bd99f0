"""What can be set about metrics."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from itertools import pairwise
from typing import Annotated, ClassVar

from msgspec import Meta

from flask_prod.core.settings import Section
from flask_prod.core.values import Secret


class MetricsSettings(Section, frozen=True, kw_only=True):
    """Where metrics are scraped, by whom, and how finely latencies are measured."""

    prefix: ClassVar[str] = "METRICS_"

    enabled: bool = True
    """Record and serve metrics; the application's own metrics go nowhere when this is off."""

    path: str = "/metrics"
    """The path that Prometheus scrapes."""

    port: Annotated[int, Meta(ge=0, le=65535)] = 0
    """A port of its own for the scrape, which METRICS_PATH of the application then answers no more; 0 for none."""

    bind: str = "0.0.0.0"  # noqa: S104  # Prometheus calls from elsewhere; who may scrape is decided by caller
    """The address that METRICS_PORT listens on."""

    token: Secret = Secret("")
    """Who sends it as `Authorization: Bearer` may scrape; without it, direct peers on private networks may."""

    buckets: tuple[float, ...] = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
    """Upper bounds in seconds of the latency histogram; those of prometheus_client by default."""

    max_series: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    """Label combinations that one metric may have; what comes later is counted under the label `__overflow__`."""

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the path or the buckets."""
        if not self.path.startswith("/") or self.path == "/" or self.path.endswith("/"):
            yield f"METRICS_PATH must start with a slash and name a page, such as /metrics, not {self.path!r}."
        try:
            ip_address(self.bind)
        except ValueError:
            yield f"METRICS_BIND must be an address to listen on, such as 127.0.0.1 or ::, not {self.bind!r}."
        if not self.buckets or any(low >= high for low, high in pairwise(self.buckets)):
            yield "METRICS_BUCKETS must be seconds in rising order, such as 0.1,0.5,1."
