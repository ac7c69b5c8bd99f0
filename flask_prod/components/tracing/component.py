"""The tracing room."""

from __future__ import annotations

from flask import Flask

from flask_prod.core.component import Component, Contribution, Installed
from flask_prod.core.settings import Section


class Tracing(Component[Section, None]):
    """Tell what a request spends its time on."""

    name = "tracing"

    def install(self, app: Flask, settings: Section, kit: Installed) -> Contribution[None]:
        """Install nothing yet."""
        return Contribution(handle=None)
