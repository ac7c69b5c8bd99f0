"""A third party's component: a guard, a header, a check, a command and a setting, by the means of any room."""

from __future__ import annotations

from typing import Any, ClassVar

import click
from flask import Flask
from werkzeug.exceptions import Forbidden

from flask_prod.core.component import Check, Component, Contribution, HeaderList, Installed, Stage, Step
from flask_prod.core.record import RequestRecord
from flask_prod.core.settings import Section


class RegionSettings(Section, frozen=True, kw_only=True):
    """Which regions are served."""

    prefix: ClassVar[str] = "REGION_"

    refused: tuple[str, ...] = ()
    """Country codes that get a 403."""


class Guard:
    """Knows a request's region from the header that the edge sets."""

    def __init__(self, settings: RegionSettings) -> None:
        self.refused = frozenset(settings.refused)

    def region(self, record: RequestRecord) -> str:
        """Return the two-letter code, empty when the edge sent none."""
        return str(record.environ.get("HTTP_X_EDGE_COUNTRY", ""))

    def ask(self, record: RequestRecord) -> Forbidden | None:
        """Refuse a region that is not served."""
        return Forbidden() if self.region(record) in self.refused else None

    def advertise(self, record: RequestRecord, headers: HeaderList) -> None:
        """Tell the client which region it was taken for."""
        headers.append(("X-Region", self.region(record) or "unknown"))


class Region(Component[RegionSettings, Guard]):
    """Answer 403 to regions that are not served."""

    name = "region"
    settings = RegionSettings

    def install(self, app: Flask, settings: RegionSettings, kit: Installed) -> Contribution[Any]:
        """Contribute the guard and what shows it."""
        guard = Guard(settings)
        return Contribution(
            handle=guard,
            steps=(Step(Stage.HOST, guard.ask),),
            headers=guard.advertise,
            checks=(Check("region", lambda: None, critical=False),),
            commands=(click.Command("regions", callback=lambda: click.echo(", ".join(sorted(guard.refused)))),),
        )
