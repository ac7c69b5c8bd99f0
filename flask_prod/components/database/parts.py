"""What the room has made while it was installed, and its engines are built with later."""

from __future__ import annotations

from typing import NamedTuple

from flask_prod.core.ports import CounterPort, GaugePort, NoMeter

from .pools.instruments import Instruments
from .queries.telemetry import Telemetry
from .tenants.names import TenantRules


class Parts(NamedTuple):
    """Metrics, which must be made during installation, and what users registered on `prod.db`."""

    refused: CounterPort
    telemetry: Telemetry
    pools: Instruments
    rules: TenantRules
    tenant_pools: GaugePort = NoMeter().gauge("", "")
