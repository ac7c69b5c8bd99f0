"""What users hold at module level: the exporter's decorators, and what one application has made of them.

A metric declared here is a promise; each application makes the real one when it is installed, scraped, or when
the metric is first used in its context.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from flask import request
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.metrics import MetricWrapperBase
from prometheus_flask_exporter import PrometheusMetrics

from .declared import Business, Declared, DeclaredChild, here, perhaps_here
from .engine import UNTRACKED
from .exposition import Exposition
from .instruments import Instruments, Series
from .store import FileValue, Locate

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from .port import OwnPort

ViewT = TypeVar("ViewT", bound=Callable[..., Any])


class Decorator(Protocol):
    """Wraps a view and leaves its type as it is."""

    def __call__(self, view: ViewT, /) -> ViewT:
        """Wrap *view*."""


class AppMetrics:
    """The metrics of one application: what the other rooms and the face find."""

    def __init__(self, instruments: Instruments, declarations: Mapping[str, Declared], locate: Locate) -> None:
        self.instruments = instruments
        self._locate = locate
        self._sampled: list[tuple[FileValue, Callable[[], float]]] = []
        self._declarations = declarations
        self._exposition = Exposition(instruments)
        self._made: dict[str, set[tuple[str, ...]]] = {}
        self.page: WSGIApplication | None = None
        """Answers METRICS_PATH and nothing else; None where metrics are off."""
        self.port: OwnPort | None = None

    def series(self, declared: Declared) -> Series:
        """Return this application's metric behind *declared*, making it on first use."""
        return self.instruments.series(
            declared.kind, declared.name, declared.documentation, declared.label_names, declared.options
        )

    def join(self) -> None:
        """Count where the web processes of this service on this host do, when there are any: for a job worker."""
        if self.instruments.store.directory is None:
            self.instruments.store.follow(self._locate)

    def keep_in(self, directory: Path) -> None:
        """Count in a directory of this worker's own, which its own port shows: no other port of it is opened."""
        if self.instruments.store.directory is None:
            self.instruments.store.move(directory)
        if self.port is not None:
            self.port.wanted = False

    def watch(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """Show what *read* returns in each living process, added up; asked every other second."""
        options = {"multiprocess_mode": "livesum"}
        series = self.instruments.series(Gauge, name, documentation, (), options)
        series.origin = "server"
        self._sampled.append((series.metric._value, read))

    def sample(self) -> None:
        """Take down what is watched, and leave exemplars where a scrape of another process finds them."""
        for value, read in self._sampled:
            value.set(float(read()))
        self.instruments.store.share_exemplars()

    def materialise(self) -> None:
        """Make all that is declared, so that it shows as zero before it is first used."""
        for declared in tuple(self._declarations.values()):
            made = self._made.setdefault(declared.name, set())
            wanted = declared.initial.copy()
            if not made or (wanted.keys() - made and not declared.is_fact):
                self._make(declared, wanted)
                made.update(wanted, ((),))

    def _make(self, declared: Declared, wanted: Mapping[tuple[str, ...], float | None]) -> None:
        series = self.series(declared)
        for values, value in wanted.items():
            child = series.child(values)
            if value is not None:
                child.set(value)

    def render(self, accept: str | None = None, names: Sequence[str] = ()) -> tuple[bytes, str]:
        """Return the answer to a scrape and its content type."""
        self.materialise()
        return self._exposition.render(accept, names)


class MetricsFace(PrometheusMetrics):  # type: ignore[misc]  # the exporter has no annotations
    """`prod.metrics`: the exporter with its decorators, for any number of applications.

    The default metrics are the pass's; `business` has plain metrics.
    """

    # The exporter's own, which has no annotations: name, description, labels, options of prometheus_client.
    counter: Callable[..., Decorator]
    gauge: Callable[..., Decorator]
    histogram: Callable[..., Decorator]
    summary: Callable[..., Decorator]

    def __init__(self, declarations: dict[str, Declared]) -> None:
        self._declarations = declarations
        super().__init__(None, path=None, export_defaults=False, registry=CollectorRegistry())
        self.business = Business(self._declare)

    @property
    def registry(self) -> CollectorRegistry:
        """The registry of the current application, an empty one outside of any."""
        metrics = perhaps_here()
        return self._nowhere if metrics is None else metrics.instruments.registry

    @registry.setter
    def registry(self, registry: CollectorRegistry) -> None:
        self._nowhere = registry

    def _declare(
        self,
        kind: type[MetricWrapperBase],
        name: str,
        documentation: str,
        labelnames: Sequence[str] = (),
        registry: object = None,
        **options: Any,
    ) -> Declared:
        """Note a metric; the same declaration may be made again, a different one of the same name may not."""
        options = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
        new = Declared(kind, name, documentation, tuple(labelnames), options)
        known = self._declarations.setdefault(name, new)
        if (known.kind, known.label_names) != (new.kind, new.label_names):
            raise ValueError(
                f"There is another metric called {name}: a {known.kind.__name__} of {known.label_names}."
            )
        if known.options != new.options:
            raise ValueError(f"There is another metric called {name}, with {known.options} and not {new.options}.")
        return known

    def _track(  # noqa: PLR0913  # as many as the exporter's
        self,
        metric_type: Any,
        metric_call: Any,
        metric_kwargs: Any,
        name: str,
        description: str,
        labels: Any,
        initial_value_when_only_static_labels: bool,
        **named: Any,
    ) -> Any:
        # The exporter's own decorator, around a metric that each application makes for itself; so is its first
        # value, in whichever application's context the decorator is used.
        if metric_type is Gauge:
            metric_kwargs.setdefault("multiprocess_mode", "livesum")
        declare = partial(self._declare, metric_type)
        decorator = super()._track(declare, metric_call, metric_kwargs, name, description, labels, False, **named)
        combined = self._get_combined_labels(labels)
        if initial_value_when_only_static_labels and combined.has_keys() and combined.has_only_static_values():
            self._declarations[name].show(combined.get_default_values())
        return decorator

    def info(
        self,
        name: str,
        description: str,
        labelnames: Sequence[str] | None = None,
        labelvalues: Sequence[object] | None = None,
        **labels: object,
    ) -> Any:
        """Report a fact as labels of a gauge that is 1."""
        if labels and labelnames:
            raise ValueError("Cannot have labels defined as `dict` and collections of names and values")
        facts = labels or dict(zip(labelnames or (), labelvalues or (), strict=True))
        declared = self._declare(Gauge, name, description, labelnames=tuple(facts), multiprocess_mode="livemax")
        values = tuple(str(value) for value in facts.values())
        metrics = perhaps_here()
        if metrics is not None:  # a fact about this application
            metrics.series(declared).child(values).set(1)
        else:
            declared.initial = {values: 1}
        declared.is_fact = True
        return DeclaredChild(declared, values) if facts else declared

    @staticmethod
    def do_not_track() -> Decorator:
        """Keep a view out of the default metrics; explicit decorators still count."""
        return _marking(PrometheusMetrics.do_not_track())

    @staticmethod
    def exclude_all_metrics() -> Decorator:
        """Keep a view out of all metrics."""
        return _marking(PrometheusMetrics.exclude_all_metrics())

    def export_defaults(self, *args: Any, **named: Any) -> None:
        """Do nothing: the kit records the default metrics of every application."""

    def generate_metrics(
        self, accept_header: str | None = None, names: Sequence[str] | None = None
    ) -> tuple[str, str]:
        """Return the current application's metrics as text, and their content type."""
        body, content_type = here().render(accept_header, names or ())
        return body.decode(), content_type


def _marking(mark: Decorator) -> Decorator:
    """Do what *mark* does to Flask's request, and leave word for the end of the pass."""

    def decorator(view: ViewT) -> ViewT:
        @wraps(view)
        def marked(*args: Any, **named: Any) -> Any:
            request.environ[UNTRACKED] = True
            return view(*args, **named)

        return cast(ViewT, mark(marked))

    return decorator
