"""What a probe costs: `/health/live` of a kit with everything on, beside a view that answers one word.

Bare is Flask with a view for the probe; by hand is the same inside the composition of the libraries, exempt from
limits and redirects as far as their documentation says how. The dearer of the kit's two probes, live and ready,
counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flask import Flask

from bench import apps, measure
from bench.measure import Figures, instructions, times

NAMES = {"bare": "health.bare", "by_hand": "health.by_hand", "live": "health.live", "ready": "health.ready"}
"""Figure -> application of bench.child."""

KIT = ("live", "ready")
"""Of these, the dearer one is the kit's figure."""

PATHS = {
    "health.bare": "/health/live",
    "health.by_hand": "/health/live",
    "health.live": "/health/live",
    "health.ready": "/health/ready",
}
"""What each is asked for."""


def build(name: str) -> Flask:
    """Build one of `NAMES`."""
    if name == "health.bare":
        return _answering(apps.bare())
    if name == "health.by_hand":
        return _answering(apps.by_hand())
    app = apps.kit()
    app.extensions["prod"].lifecycle.start()
    return app


def probe_instructions(
    environ: Callable[[], dict[str, str]], names: Sequence[str] = measure.NAMES
) -> Figures | str:
    """Count the instructions of one probe."""
    counted = instructions(environ, [app for name, app in NAMES.items() if name in names or name in KIT])
    return counted if isinstance(counted, str) else _figures(counted)


def probe_times(environ: Callable[[], dict[str, str]]) -> Figures:
    """Return the median microseconds of one probe."""
    return _figures(times(environ, tuple(NAMES.values())))


def _figures(found: Figures) -> Figures:
    figures = {name: found[app] for name, app in NAMES.items() if app in found}
    kit = max(figures.pop(name) for name in KIT)
    return {**figures, "kit": kit}


def _answering(app: Flask) -> Flask:
    @app.get("/health/live")
    def live() -> str:
        return "alive"

    return app
