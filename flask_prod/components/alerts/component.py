"""The alerts room."""

from __future__ import annotations

from flask import Flask

from flask_prod.core.component import Component, Contribution, Installed
from flask_prod.core.settings import Section


class Alerts(Component[Section, None]):
    """Tell people when too much goes wrong."""

    name = "alerts"

    def install(self, app: Flask, settings: Section, kit: Installed) -> Contribution[None]:
        """Install nothing yet."""
        return Contribution(handle=None)
