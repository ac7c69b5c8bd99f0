"""Install the tracing room: one step per request, and a tracer for the rooms that come after."""

from __future__ import annotations

import os
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution

from flask import Flask

from flask_prod.core.component import Check, Component, Contribution, Installed, Stage, Step
from flask_prod.core.errors import MissingExtra

from .engine import AppTracing
from .face import TracingFace
from .settings import GRPC, TracingSettings, destination


class Tracing(Component[TracingSettings, AppTracing | None]):
    """Tell what a request spends its time on."""

    name = "tracing"
    after = ("metrics", "proxy")
    settings = TracingSettings

    def face(self) -> TracingFace:
        """Build `prod.tracing`."""
        return TracingFace()

    def install(self, app: Flask, settings: TracingSettings, kit: Installed) -> Contribution[AppTracing | None]:
        """Make sure that the libraries are there; without TRACING_ENABLED nothing of them is imported."""
        if not settings.on:
            return Contribution(handle=None)
        for library, extra in needed(settings):
            try:
                distribution(library)
            except PackageNotFoundError:
                raise MissingExtra("tracing", library, extra) from None
        tracing = AppTracing(settings, kit)
        if os.environ.get("SERVER_SOFTWARE", "").startswith("gunicorn"):
            tracing.load()  # workers that are forked later share what is imported now
        return Contribution(
            handle=tracing,
            steps=(Step(Stage.IDENTITY, tracing.begin),),
            observe=tracing.observe,
            tracer=tracing,
            checks=(Check("tracing", tracing.look, critical=False, local=True),),
            reload=lambda changed: partial(tracing.adopt, changed),
            start=tracing.start,
            after_fork=tracing.after_fork,
            close=tracing.close,
        )


def needed(settings: TracingSettings) -> tuple[tuple[str, str], ...]:
    """Return the libraries that the settings ask for, and the extra that brings each."""
    sdk = ("opentelemetry-sdk", "tracing")
    if settings.exporter == "console":
        return (sdk,)
    if destination(settings).protocol == GRPC:
        return (sdk, ("opentelemetry-exporter-otlp-proto-grpc", "tracing-grpc"))
    return (sdk, ("opentelemetry-exporter-otlp-proto-http", "tracing"))
