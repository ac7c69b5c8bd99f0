"""A third party's component: a guard, a header, checks, a command and a setting, by the means of any room."""

from __future__ import annotations

from typing import Any, ClassVar

import click
from flask import Flask
from werkzeug.exceptions import Forbidden

from flask_prod.core.component import Check, Component, Contribution, HeaderList, Installed, Stage, Step
from flask_prod.core.record import RequestRecord
from flask_prod.core.rule import WARNING, Deployment, Evidence, Evidences, rule
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


@rule(
    "REGION01", WARNING, "Every region is served", remedy="REGION_REFUSED=XX, or leave the component out.",
)  # fmt: skip
def refuses_nobody(deployment: Deployment) -> Evidences:
    """A guard that lets everybody pass costs each request a look, and guards nothing."""
    if not deployment.get("REGION_REFUSED"):
        yield Evidence("REGION_REFUSED is empty", "REGION_REFUSED")


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
            rules=(refuses_nobody,),
            commands=(click.Command("regions", callback=lambda: click.echo(", ".join(sorted(guard.refused)))),),
        )
