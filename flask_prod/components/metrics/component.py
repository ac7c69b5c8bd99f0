"""The metrics room: default metrics from the pass, a page to scrape, a meter for the other rooms."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, partial
from importlib.metadata import version
from typing import TYPE_CHECKING

from prometheus_client import Gauge
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Request, Response

from flask_prod.core.component import Component, Contribution, Event, Installed, Periodic, Stage, Step
from flask_prod.core.errors import ConfigError
from flask_prod.core.gate import Gate
from flask_prod.core.record import RequestRecord
from flask_prod.core.run_dir import Leader

from .cli import metrics_command
from .declared import Declared
from .engine import HttpMetrics
from .exposition import may_scrape
from .face import AppMetrics, MetricsFace
from .instruments import OVERFLOW, InstrumentMeter, Instruments
from .place import Place
from .port import PERIOD, OwnPort
from .settings import MetricsSettings
from .spent import Spent
from .store import FileStore

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from flask import Flask

_OFTEN = 2.0
"""Seconds between looks at what is only worth a look now and then."""

_version = cache(version)
"""It reads the whole description of a package."""


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
        place = Place(kit.service, app.root_path)
        store = FileStore(place.given() if settings.enabled else None, app.name, partial(_unwritable, kit))
        instruments = Instruments(store, settings.max_series, partial(_overflowing, kit, settings.max_series))
        metrics = AppMetrics(instruments, self._declarations, place.of_the_web)
        if not settings.enabled:
            return Contribution(handle=metrics)

        http = HttpMetrics(instruments, settings.buckets)
        _tell_versions(instruments, kit)
        spent = Spent(instruments)
        instruments.own()
        events = InstrumentMeter(instruments).counter(
            "flask_prod_events_total",
            "Changes of state and other events of the rooms, by name",
            ("event", "severity"),
        )
        try:
            metrics.materialise()
        except ValueError as error:
            raise ConfigError([str(error)]) from error
        scrape = Scrape(metrics, settings, kit.emit)
        port = _own_port(settings, kit, scrape, place) if settings.port else None
        metrics.page, metrics.port = scrape.serve, port
        steps = () if port else (Step(Stage.IDENTITY, scrape.answer, settings.path),)
        return Contribution(
            handle=metrics,
            commands=(metrics_command(metrics),),
            meter=InstrumentMeter(instruments),
            steps=(*steps, Step(Stage.HOST, http.enter)),
            observe=http.observe,
            on_event=lambda event: events.inc(event.name, event.severity),
            operational=() if port else (settings.path,),
            periodic=(
                Periodic("metrics place", _OFTEN, place.publish),
                Periodic("metrics samples", _OFTEN, metrics.sample),
                Periodic("metrics spent", _OFTEN, spent.look),
                *((Periodic("metrics port", PERIOD, port.take),) if port else ()),
            ),
            after_fork=_all(store.after_fork, spent.after_fork, port.after_fork if port else None),
            close=_all(port.close if port else None, spent.look, store.close),
        )


class Scrape:
    """The page that Prometheus reads, answered before Flask is entered: no hook of the application can hide it."""

    def __init__(
        self, metrics: AppMetrics, settings: MetricsSettings, emit: Callable[[Event], None] = lambda event: None
    ) -> None:
        self._metrics = metrics
        self._path = settings.path
        self._gate = Gate("METRICS_TOKEN", settings.token, emit) if settings.token else None

    def answer(self, record: RequestRecord) -> Response | NotFound | None:
        """Answer a scrape; who may not have it learns nothing, not even that it is there."""
        if record.path != self._path:
            return None
        record.operational = True
        return self._page(record.environ)

    def serve(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer as the only page of a port of its own."""
        answer = self._page(environ) if environ["PATH_INFO"] == self._path else NotFound()
        return answer(environ, start_response)

    def _page(self, environ: WSGIEnvironment) -> Response | NotFound:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD") or not may_scrape(environ, self._gate):
            return NotFound()
        request = Request(environ, populate_request=False)
        body, content_type = self._metrics.render(request.headers.get("Accept"), request.args.getlist("name[]"))
        return Response(body, content_type=content_type, headers={"Cache-Control": "no-store"})


def _own_port(settings: MetricsSettings, kit: Installed, scrape: Scrape, place: Place) -> OwnPort:
    if settings.port == kit.service.port:
        raise ConfigError([f"METRICS_PORT must differ from PORT, which is {settings.port} too."])

    def tell(error: OSError) -> None:
        message = (
            f"METRICS_PORT {settings.port} cannot be listened on ({error.strerror or error}); it is tried on."
        )
        kit.emit(Event("prod.metrics.port_unavailable", message, severity="error"))

    leader = Leader(place.folder(), f"metrics-port-{settings.port}")
    return OwnPort((settings.bind, settings.port), scrape.serve, leader, tell)


def _unwritable(kit: Installed, error: OSError) -> None:
    reason = error.strerror or error
    message = f"The metrics directory cannot be written ({reason}); metrics go on in this process alone."
    kit.emit(Event("prod.metrics.unwritable", message, severity="error"))


def _overflowing(kit: Installed, limit: int, metric: str) -> None:
    message = (
        f"Metric {metric} has METRICS_MAX_SERIES ({limit}) label combinations; others are counted together under "
        f"{OVERFLOW}. Give it labels with fewer values, or raise the limit."
    )
    kit.emit(Event("prod.metrics.overflow", message, severity="warning", fields={"metric": metric}))


def _all(*calls: Callable[[], None] | None) -> Callable[[], None]:
    def call() -> None:
        for one in calls:
            if one is not None:
                one()

    return call


def _tell_versions(instruments: Instruments, kit: Installed) -> None:
    options = {"multiprocess_mode": "livemax"}
    exporter = instruments.series(
        Gauge, "flask_exporter_info", "Information about the Prometheus Flask exporter", ("version",), options
    )
    exporter.child((_version("prometheus-flask-exporter"),)).set(1)
    service = kit.service
    build = instruments.series(
        Gauge, "flask_prod_build_info", "Who this service is, and which flask-prod serves it",
        ("service", "version", "environment", "flask_prod_version"), options,
    )  # fmt: skip
    ours = _version("flask-prod")
    build.child((service.service_name, service.service_version, service.environment, ours)).set(1)
