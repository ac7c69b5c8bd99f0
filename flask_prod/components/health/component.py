"""The room that asks every other room how it is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from flask import Flask

from flask_prod.core.certificate import CERTIFICATES
from flask_prod.core.component import Component, Contribution, Installed, Stage, Step
from flask_prod.core.gate import Gate
from flask_prod.core.kit import state_of
from flask_prod.core.run_dir import run_dir
from flask_prod.core.settings import Section
from flask_prod.core.values import Secret

from . import host
from .board import Board
from .engine import Engine, Plan, Rule, asking
from .face import HealthFace, HealthHandle, plan
from .redact import Redactor
from .rounds import Rounds
from .settings import HealthSettings
from .views import Probes
from .watchdog import Watchdog

_DISK_FREE, _MEMORY_USED = 0.05, 0.9


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
        rule = Rule(settings.failures, settings.successes)
        plans = _plans(kit, settings, self._face, _own(app, settings, kit))
        engine = Engine(plans, asking(app.app_context, _cleaner(app)), settings.stale_after, rule)
        engine.tell(kit.emit, kit.meter)
        handle = HealthHandle(engine, kit.service)
        if kit.service.production if settings.background is None else settings.background:
            handle.run_in_background(*_background(app, settings, kit, engine))

        tokens = ",".join(token.reveal() for token in (settings.token, kit.service.ops_token) if token)
        probes = Probes(handle, settings.path, Gate("HEALTH_TOKEN", Secret(tokens), kit.emit))
        app.register_blueprint(probes.blueprint())
        path = settings.path
        return Contribution(
            handle=handle,
            steps=(Step(Stage.IDENTITY, probes.ask, path),),
            operational=(path, f"{path}/"),
            start=handle.start,
            after_fork=handle.after_fork,
            close=handle.close,
        )


def _background(app: Flask, settings: HealthSettings, kit: Installed, engine: Engine) -> tuple[Rounds, Watchdog]:
    board = Board(run_dir(kit.service, app.root_path), _mark(app))
    watchdog = Watchdog(board, kit.emit, settings.stuck_after)
    redis = kit.handle("redis")
    signs: Mapping[str, Callable[[], bool]] = {}
    if redis is not None and redis.configured:
        signs = {"redis": lambda: bool(redis.degraded)}
    return Rounds(engine, board, signs, watchdog), watchdog


def _own(app: Flask, settings: HealthSettings, kit: Installed) -> Mapping[str, Plan]:
    """Return the checks that the settings ask for: of this host, and of external services."""
    production, certificates = kit.service.production, kit.meter.gauge(*CERTIFICATES)
    free = (_DISK_FREE if production else 0.0) if settings.disk_free is None else settings.disk_free
    used = (_MEMORY_USED if production else 0.0) if settings.memory_used is None else settings.memory_used
    checks = []
    if free:
        checks.append(host.disk([Path(one) for one in settings.storage] or [Path(app.instance_path)], free))
    if used:
        checks.append(host.memory(used))
    if settings.storage:
        checks.append(host.storage(settings.storage))
    found = {check.name: plan(check, settings.timeout, settings.interval) for check in checks}
    if not settings.checks:
        return found
    from . import external

    asked = external.plans(settings.checks, settings.timeout, settings.interval, certificates)
    return found | {one.check.name: one for one in asked}


def _plans(
    kit: Installed, settings: HealthSettings, face: HealthFace, own: Mapping[str, Plan]
) -> Callable[[], Iterable[Plan]]:
    """Return what lists the checks of all rooms and of the user; a user's check replaces a room's of its name."""
    groups = {name: frozenset(members.replace(",", " ").split()) for name, members in settings.groups.items()}

    def chosen(one: Plan) -> Plan:
        name = one.check.name
        named = frozenset(group for group, members in groups.items() if name in members)
        if name in settings.ready and not one.check.ready:
            one = replace(one, check=replace(one.check, ready=True))
        return replace(one, groups=one.groups | named) if named else one

    def plans() -> Iterable[Plan]:
        checks = (check for contribution in kit.contributions.values() for check in contribution.checks)
        found = {check.name: plan(check, settings.timeout, settings.interval) for check in checks}
        found |= own
        found |= {one.check.name: one for one in face.plans(settings.timeout, settings.interval)}
        return [chosen(one) for one in found.values()]

    return plans


def _mark(app: Flask) -> Callable[[], str]:
    """Return what tells apart services of one name that may ask different things: a digest of their settings."""

    def mark() -> str:
        rows = sorted(f"{row.key}={row.value}" for row in state_of(app).settings.rows)
        return hashlib.sha256("\0".join(rows).encode()).hexdigest()[:8]

    return mark


def _cleaner(app: Flask) -> Callable[[str], str]:
    """Return what takes this application's secrets out of a text; they are known once its kit is complete."""
    redactor: Redactor | None = None

    def clean(text: str) -> str:
        nonlocal redactor
        if redactor is None:
            redactor = Redactor(row.value for row in state_of(app).settings.rows)
        return redactor.clean(text)

    return clean
