"""The room that asks every other room how it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar

from flask import Flask

from flask_prod.core.component import Component, Contribution, Installed, Stage, Step
from flask_prod.core.kit import state_of
from flask_prod.core.settings import Section

from .engine import Engine, Plan, asking
from .face import HealthFace, HealthHandle, plan
from .redact import Redactor
from .settings import HealthSettings
from .views import Probes


class Health(Component[HealthSettings, HealthHandle]):
    """Answer the probes of load balancers and orchestrators, from the checks that rooms contribute."""

    name = "health"
    settings: ClassVar[type[Section]] = HealthSettings

    def __init__(self) -> None:
        self._face = HealthFace()

    def face(self) -> HealthFace:
        """Return where users register checks of their own."""
        return self._face

    def install(self, app: Flask, settings: HealthSettings, kit: Installed) -> Contribution[HealthHandle]:
        """Build the engine and the probes of one application."""
        ask = asking(app.app_context, _cleaner(app))
        engine = Engine(_plans(kit, settings, self._face), ask, settings.stale_after)
        engine.tell(kit.emit, kit.meter)
        handle = HealthHandle(engine, kit.service)
        probes = Probes(handle, settings.path, settings.token, kit.emit)
        app.register_blueprint(probes.blueprint())
        path = settings.path
        return Contribution(
            handle=handle,
            steps=(Step(Stage.IDENTITY, probes.ask, path),),
            operational=(path, f"{path}/live", f"{path}/ready", f"{path}/"),
            start=handle.start,
            after_fork=handle.after_fork,
            close=handle.close,
        )


def _plans(kit: Installed, settings: HealthSettings, face: HealthFace) -> Callable[[], Iterable[Plan]]:
    """Return what lists the checks of all rooms and of the user; a user's check replaces a room's of its name."""

    def plans() -> Iterable[Plan]:
        checks = (check for contribution in kit.contributions.values() for check in contribution.checks)
        found = {check.name: plan(check, settings.timeout, settings.interval) for check in checks}
        found |= {own.check.name: own for own in face.plans(settings.timeout, settings.interval)}
        return found.values()

    return plans


def _cleaner(app: Flask) -> Callable[[str], str]:
    """Return what takes this application's secrets out of a text; they are known once its kit is complete."""
    redactor: Redactor | None = None

    def clean(text: str) -> str:
        nonlocal redactor
        if redactor is None:
            redactor = Redactor(row.value for row in state_of(app).settings.rows)
        return redactor.clean(text)

    return clean
