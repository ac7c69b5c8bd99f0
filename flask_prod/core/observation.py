"""What a request learns of a dependency, for the health room: a failure that was met waits for no check."""

from __future__ import annotations

from flask import Flask

from .kit import EXTENSION


def observed(app: Flask, check: str, detail: str = "") -> None:
    """Count a failure as one of the health check *check*, which is asked at once; never raises.

    *detail* holds no secrets; without one nothing is counted, the check is only asked.
    """
    state = app.extensions.get(EXTENSION)
    health = state.contributions.get("health") if state is not None else None
    if health is not None:
        health.handle.observed(check, detail)
