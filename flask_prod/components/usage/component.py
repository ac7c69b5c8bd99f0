"""The usage room."""

from __future__ import annotations

from flask import Flask

from flask_prod.core.component import Component, Contribution, Installed
from flask_prod.core.settings import Section


class Usage(Component[Section, None]):
    """Remember who uses which route how much."""

    name = "usage"

    def install(self, app: Flask, settings: Section, kit: Installed) -> Contribution[None]:
        """Install nothing yet."""
        return Contribution(handle=None)
