"""What a scrape is told, and who may scrape."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client import (
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    PROCESS_COLLECTOR,
    REGISTRY,
    CollectorRegistry,
    Metric,
    ProcessCollector,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.samples import Exemplar

from flask_prod.core.gate import Gate
from flask_prod.core.memory import of_container, of_machine
from flask_prod.core.peers import is_near

from .instruments import Instruments
from .store import FileStore

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

logger = logging.getLogger(__name__)

_FORWARDED = ("HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_X_REAL_IP")
_ONCE_PER_SERVICE = ("process_start_time_seconds", "process_max_fds")


class Exposition:
    """Everything one application shows to Prometheus.

    One process shows its registry and that of prometheus_client itself. Several show the sum of their files,
    what their living processes use together, and which Python they run; `process_cpu_seconds_total` and the
    garbage collector's counters are left out then, because they would fall whenever a worker is replaced.
    """

    def __init__(self, instruments: Instruments) -> None:
        self._instruments = instruments

    def render(self, accept: str | None, names: Collection[str] = ()) -> tuple[bytes, str]:
        """Return body and content type, in the format that *accept* asks for; only *names* if there are any."""
        encode, content_type = choose_encoder(accept or "")
        if not names:
            return encode(self), content_type
        registry = CollectorRegistry(auto_describe=True)
        registry.register(self)
        return encode(registry.restricted_registry(names)), content_type

    def collect(self) -> Iterator[Metric]:
        """Yield each metric once, the application's own before others of the same name."""
        seen = set()
        for metric in self._all():
            if metric.name in seen:
                continue
            seen.add(metric.name)
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric

    def _all(self) -> Iterator[Metric]:
        store = self._instruments.store
        yield from memory()
        if not store.shared:
            yield from self._instruments.registry.collect()
            yield from REGISTRY.collect()
            return
        yield from with_exemplars(merged(store), store.all_exemplars())
        yield from processes(store)
        yield from PLATFORM_COLLECTOR.collect()
        # Collectors that keep no values of their own, such as one that asks a queue for its length.
        spared = (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR)
        for collector in tuple(REGISTRY._collector_to_names):
            if collector not in spared and not hasattr(collector, "_labelnames"):
                yield from collector.collect()


def memory() -> Iterator[Metric]:
    """Yield what the service uses of the memory that it may use: of its container, else of the machine."""
    found = of_container() or of_machine()
    if found is None:
        return
    used, limit = found
    yield GaugeMetricFamily("flask_prod_memory_bytes", "Memory in use in the container, else the machine", used)
    yield GaugeMetricFamily(
        "flask_prod_memory_limit_bytes", "Memory that the container may use, else what the machine has", limit
    )


def merged(store: FileStore) -> Iterable[Metric]:
    """Add up the files of all processes; one that cannot be read is left out and reported."""
    files = store.files()
    try:
        return list(MultiProcessCollector.merge(files))
    except Exception:
        return list(MultiProcessCollector.merge([file for file in files if _readable(file)]))


def with_exemplars(metrics: Iterable[Metric], exemplars: Mapping[str, Exemplar]) -> Iterator[Metric]:
    """Give the samples of *metrics* the exemplars that were kept for their values."""
    if not exemplars:
        yield from metrics
        return
    found = {
        (name, frozenset(labels.items())): e
        for key, e in exemplars.items()
        for _, name, labels, _ in [json.loads(key)]
    }
    names = {name for name, _ in found}
    for metric in metrics:
        if not names.isdisjoint((f"{metric.name}_bucket", f"{metric.name}_total")):
            metric.samples = [
                sample._replace(exemplar=found.get((sample.name, frozenset(sample.labels.items()))))
                for sample in metric.samples
            ]
        yield metric


def processes(store: FileStore) -> Iterator[Metric]:
    """Yield what the living processes use together."""
    sums: dict[str, Metric] = {}
    for pid in {pid for _, pid in store.living()}:
        for metric in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            if metric.type != "gauge":
                continue
            known = sums.setdefault(metric.name, metric)
            if known is not metric:
                both = (known.samples[0].value, metric.samples[0].value)
                value = min(both) if metric.name in _ONCE_PER_SERVICE else sum(both)
                known.samples[0] = known.samples[0]._replace(value=value)
    yield from sums.values()


def may_scrape(environ: WSGIEnvironment, gate: Gate | None) -> bool:
    """Tell whether this caller may see metrics: by token if there is one, else by where it calls from.

    A request that some proxy forwarded is not a direct one, whatever address the proxy has.
    """
    if gate is not None:
        return gate.admits(environ.get("HTTP_AUTHORIZATION", ""))
    if any(header in environ for header in _FORWARDED):
        return False
    return is_near(environ.get("flask_prod.peer") or environ.get("REMOTE_ADDR") or "")


def _readable(file: str) -> bool:
    try:
        for _ in MmapedDict.read_all_values_from_file(file):
            pass
    except Exception as error:
        logger.warning("Metrics file %s cannot be read and is left out: %s", file, error)
        return False
    return True
