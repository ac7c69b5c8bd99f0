"""The alerts room: apprise behind the counters and events that are there anyway."""

from __future__ import annotations

import importlib.util
from functools import cache

from flask import Flask

from flask_prod.core.component import Component, Contribution, Installed, Periodic
from flask_prod.core.errors import MissingExtra
from flask_prod.core.ports import NoMeter
from flask_prod.core.run_dir import run_dir

from .cli import alerts_command
from .engine import FAILED, AppAlerts, Instruments
from .sender import Channel, Sender, hush
from .settings import AlertSettings

_EVERY = 2.0
"""Seconds between two looks at the error rate."""


class Alerts(Component[AlertSettings, AppAlerts | None]):
    """Tell people when too much goes wrong."""

    name = "alerts"
    settings = AlertSettings

    def install(self, app: Flask, settings: AlertSettings, kit: Installed) -> Contribution[AppAlerts | None]:
        """Open the channels; without ALERTS_CHANNELS nothing is imported, and nothing runs."""
        if not settings.channels:
            return Contribution(handle=None, commands=(alerts_command(None),))
        if importlib.util.find_spec("apprise") is None:
            raise MissingExtra("ALERTS_CHANNELS", "apprise", "alerts")

        counted = kit.meter.counter(
            "flask_prod_alerts_total", "Alerts to channels: sent, failed, dropped", ("result",)
        )
        sender = Sender([Channel(address, counted) for address in settings.addresses])
        folder = cache(lambda: run_dir(kit.service, app.root_path))
        alerts = AppAlerts(settings, kit.service, sender, _instruments(kit), folder)
        speak = hush()

        def close() -> None:
            alerts.close()
            speak()

        watched = settings.error_rate > 0
        return Contribution(
            handle=alerts,
            observe=alerts.observe if watched else None,
            on_event=alerts.on_event if settings.severity != "never" else None,
            periodic=(Periodic("the error rate's watch", _EVERY, alerts.watch),) if watched else (),
            commands=(alerts_command(alerts),),
            start=alerts.start if watched else None,
            after_fork=alerts.after_fork,
            close=close,
        )


def _instruments(kit: Installed) -> Instruments:
    meter = kit.meter
    return Instruments(
        failed=meter.counter(f"{FAILED}_total", "Requests answered 5xx or broken off by an error"),
        rate=meter.gauge("flask_prod_error_rate_per_minute", "Failed requests of the last minute, all workers"),
        total=None if isinstance(meter, NoMeter) else meter.total,
    )
