"""A measured engine on SQLite in memory, and what was told of its queries."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine, create_engine

from flask_prod.components.database.queries.measure import measure
from flask_prod.components.database.queries.telemetry import Telemetry
from flask_prod.core.component import Event
from flask_prod.core.ports import NoMeter, NoTracer, Tracer
from flask_prod.core.settings import ServiceSettings


@dataclass
class Told:
    """An engine, and what became known of its queries."""

    events: list[Event] = field(default_factory=list)
    observed: list[tuple[str, ...]] = field(default_factory=list)
    errors: list[tuple[str, ...]] = field(default_factory=list)
    telemetry: Telemetry = field(init=False)
    engine: Engine = field(init=False)


class _Meter(NoMeter):
    def __init__(self, told: Told) -> None:
        self._told = told

    def histogram(self, *_: Any) -> Any:
        return _Instrument(self._told.observed)

    def counter(self, *_: Any) -> Any:
        return _Instrument(self._told.errors)


class _Instrument:
    def __init__(self, told: list[tuple[str, ...]]) -> None:
        self._told = told

    def observe(self, _value: float, *labels: str) -> None:
        self._told.append(labels)

    def inc(self, *labels: str) -> None:
        self._told.append(labels)


def measured(
    url: str = "sqlite://",
    slow: float = 0,
    environment: str = "test",
    tracer: Tracer | None = None,
    pool_pre_ping: bool = False,
) -> Told:
    """Return a measured engine; who asks for it disposes of it."""
    told = Told()
    kit: Any = type("Kit", (), {})()
    kit.meter, kit.tracer, kit.emit = _Meter(told), tracer or NoTracer(), told.events.append
    kit.service = ServiceSettings(service_name="shop", environment=environment)
    told.telemetry = Telemetry(kit, slow)
    told.telemetry.counts = True
    told.engine = create_engine(url, pool_pre_ping=pool_pre_ping)
    measure(told.engine, "primary", told.telemetry)
    return told
