"""The metrics room: default metrics from the pass, a page to scrape, a meter for the other rooms."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import Gauge
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Request, Response

from flask_prod.core.component import Component, Contribution, Event, Installed, Stage, Step
from flask_prod.core.errors import ConfigError
from flask_prod.core.record import RequestRecord

from .engine import HttpMetrics
from .exposition import may_scrape
from .face import AppMetrics, Declared, MetricsFace
from .instruments import InstrumentMeter, Instruments
from .settings import MetricsSettings
from .store import FileStore

if TYPE_CHECKING:
    from flask import Flask

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
"""The variable of prometheus_client that names the directory which several processes share."""


class Metrics(Component[MetricsSettings, AppMetrics]):
    """Measure requests and let Prometheus scrape the result."""

    name = "metrics"
    settings = MetricsSettings

    def __init__(self) -> None:
        self._declarations: dict[str, Declared] = {}

    def face(self) -> MetricsFace:
        """Build `prod.metrics`; what it declares is made in every application of this kit."""
        return MetricsFace(self._declarations)

    def install(self, app: Flask, settings: MetricsSettings, kit: Installed) -> Contribution[AppMetrics]:
        """Make this application's registry and start measuring, unless METRICS_ENABLED is off."""
        store = _store(kit) if settings.enabled else None
        instruments = Instruments(store, settings.max_series)
        metrics = AppMetrics(instruments, self._declarations)
        if not settings.enabled:
            return Contribution(handle=metrics)

        http = HttpMetrics(instruments, settings.buckets)
        _tell_versions(instruments, kit)
        try:
            metrics.materialise()
        except ValueError as error:
            raise ConfigError([str(error)]) from error
        return Contribution(
            handle=metrics,
            meter=InstrumentMeter(instruments),
            steps=(Step(Stage.IDENTITY, Scrape(metrics, settings).answer), Step(Stage.HOST, http.enter)),
            observe=http.observe,
            operational=(settings.path,),
            after_fork=store.after_fork if store else None,
            close=store.close if store else None,
        )


class Scrape:
    """The page that Prometheus reads, answered before Flask is entered: no hook of the application can hide it."""

    def __init__(self, metrics: AppMetrics, settings: MetricsSettings) -> None:
        self._metrics = metrics
        self._path = settings.path
        self._token = settings.token

    def answer(self, record: RequestRecord) -> Response | NotFound | None:
        """Answer a scrape; who may not have it learns nothing, not even that it is there."""
        if record.path != self._path:
            return None
        record.operational = True
        if record.method not in ("GET", "HEAD") or not may_scrape(record.environ, self._token):
            return NotFound()
        request = Request(record.environ, populate_request=False)
        body, content_type = self._metrics.render(request.headers.get("Accept"), request.args.getlist("name[]"))
        return Response(body, content_type=content_type, headers={"Cache-Control": "no-store"})


def _store(kit: Installed) -> FileStore | None:
    directory = os.environ.get(MULTIPROCESS)
    if not directory:
        return None

    def tell(error: OSError) -> None:
        message = (
            f"{MULTIPROCESS} cannot be written ({error.strerror or error}); metrics go on in this process alone."
        )
        kit.emit(Event("prod.metrics.unwritable", message, severity="error"))

    return FileStore(Path(directory), kit.app.name, tell)


def _tell_versions(instruments: Instruments, kit: Installed) -> None:
    options = {"multiprocess_mode": "max"}
    exporter = instruments.series(
        Gauge, "flask_exporter_info", "Information about the Prometheus Flask exporter", ("version",), options
    )
    exporter.child((version("prometheus-flask-exporter"),)).set(1)
    service = kit.service
    build = instruments.series(
        Gauge, "flask_prod_build_info", "Who this service is, and which flask-prod serves it",
        ("service", "version", "environment", "flask_prod_version"), options,
    )  # fmt: skip
    build.child((service.service_name, service.service_version, service.environment, version("flask-prod"))).set(1)
