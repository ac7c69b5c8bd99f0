"""The kit without knowledge of any feature: refuse, choose, read, install, publish."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from flask import Flask, current_app

from .component import Contribution, Event
from .errors import ConfigError, NotInstalled, SetupFinished
from .lifecycle import Lifecycle
from .pipeline import Pipeline
from .ports import Meter, NoMeter, NoTracer, Tracer
from .registry import AnyComponent, choose, load_component, ordered
from .reload import Reloader
from .run_dir import run_dir
from .settings import Section, ServiceSettings, Settings, peek, read_settings
from .sources import Finder

logger = logging.getLogger(__name__)

EXTENSION = "prod"
"""The key of a kit's state in `app.extensions`."""


@dataclass(frozen=True)
class KitState:
    """What one application has of its kit; lives in `app.extensions["prod"]`."""

    app: Flask
    service: ServiceSettings
    settings: Settings
    contributions: Mapping[str, Contribution[Any]]
    pipeline: Pipeline
    lifecycle: Lifecycle


class Kit:
    """Composes components into applications; holds no application itself.

    `only` and `without` choose among the built-in components, `extra` switches on a third party's by name.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        only: Collection[str] | None = None,
        without: Collection[str] = (),
        extra: Collection[str] = (),
    ) -> None:
        self._only = only
        self._without = without
        self._extra = extra
        self._components: dict[str, AnyComponent] = {}
        self._faces: dict[str, object | None] = {}
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Install every chosen component on *app*; ConfigError lists all that stands in the way."""
        if EXTENSION in app.extensions:
            raise SetupFinished(
                f"{app.name!r} already has a kit. Call init_app once per application: either ProdKit(app), or "
                "prod = ProdKit() and prod.init_app(app) in the factory."
            )
        finder = Finder(app.config, Path(app.root_path))
        sources = finder.find()
        names = choose(self._only, self._without, (*self._extra, *peek(sources, ServiceSettings, "components")))
        components = ordered(names, self._component, self._without)
        settings = read_settings([ServiceSettings, *(c.settings for c in components)], sources)

        service = _service(app, settings)
        installing = _Installing(app, service)
        _apply_to_flask(app, service)
        installing.install(components, settings)
        reloader = _reloader(finder, {c.name: c.settings for c in components}, settings, installing)
        app.extensions[EXTENSION] = _publish(installing, settings, reloader)

    def get(self, name: str) -> Any:
        """Return the handle of component *name*: its face, or what the current application has of it.

        NotInstalled when this kit leaves the component out, or when it needs an application and there is none.
        """
        self.require(name)
        if name not in self._faces:
            self._faces[name] = self._component(name).face()
        face = self._faces[name]
        if face is not None:
            return face
        contribution = current_state().contributions.get(name)
        if contribution is None:
            raise NotInstalled(f"{name} is left out of this application's kit, with what it requires.")
        return contribution.handle

    def require(self, name: str) -> None:
        """Raise NotInstalled when this kit leaves component *name* out."""
        if name in self._without or (self._only is not None and name not in self._chosen()):
            raise NotInstalled(f"{name} is left out of this kit: see only= and without= of ProdKit.")

    def _chosen(self) -> Collection[str]:
        # What `only` names may require more; those are loaded once an application was installed.
        return {*(self._only or ()), *self._extra, *self._components}

    def _component(self, name: str) -> AnyComponent:
        if name not in self._components:
            self._components[name] = load_component(name)
        return self._components[name]


class _Installing:
    """What components see of the kit, and the state as it grows."""

    def __init__(self, app: Flask, service: ServiceSettings) -> None:
        self.app = app
        self.service = service
        self.contributions: dict[str, Contribution[Any]] = {}

    @property
    def meter(self) -> Meter:
        return next((c.meter for c in self.contributions.values() if c.meter), None) or NoMeter()

    @property
    def tracer(self) -> Tracer:
        return next((c.tracer for c in self.contributions.values() if c.tracer), None) or NoTracer()

    def handle(self, name: str) -> Any:
        contribution = self.contributions.get(name)
        return None if contribution is None else contribution.handle

    def emit(self, event: Event) -> None:
        for name, contribution in self.contributions.items():
            if contribution.on_event is None:
                continue
            try:
                contribution.on_event(event)
            except Exception:
                logger.exception("%s could not take event %s", name, event.name)

    def install(self, components: Collection[AnyComponent], settings: Settings) -> None:
        """Install in order; report what several find wrong together, with all that was opened closed again."""
        problems: list[str] = []
        for component in components:
            try:
                contribution = component.install(self.app, settings.section(component.settings), self)
            except ConfigError as error:
                problems += error.problems
            else:
                self.contributions[component.name] = contribution
        if problems:
            Lifecycle(self.contributions).close()
            raise ConfigError(problems)


def state_of(app: Flask) -> KitState:
    """Return the kit's state of *app*; NotInstalled when it has none."""
    state: KitState | None = app.extensions.get(EXTENSION)
    if state is None:
        raise NotInstalled(f"{app.name!r} has no kit: call ProdKit(app) or prod.init_app(app) in its factory.")
    return state


def current_state() -> KitState:
    """Return the state of the current application; NotInstalled outside of an application context."""
    if not current_app:
        raise NotInstalled("This needs an application: call it in a request, a job, or `with app.app_context():`.")
    return state_of(current_app._get_current_object())  # type: ignore[attr-defined]


def _service(app: Flask, settings: Settings) -> ServiceSettings:
    service = settings.section(ServiceSettings)
    return service if service.service_name else msgspec.structs.replace(service, service_name=app.name)


def _apply_to_flask(app: Flask, service: ServiceSettings) -> None:
    """Give Flask what it reads itself; what the application set wins."""
    if not app.secret_key and service.secret_key:
        app.secret_key = service.secret_key.reveal()
    if service.secret_key_fallbacks:
        app.config["SECRET_KEY_FALLBACKS"] = [key.reveal() for key in service.secret_key_fallbacks]
    if app.config["MAX_CONTENT_LENGTH"] is None:
        app.config["MAX_CONTENT_LENGTH"] = service.max_content_length


def _reloader(
    finder: Finder, rooms: Mapping[str, type[Section]], settings: Settings, installing: _Installing
) -> Reloader | None:
    service = installing.service
    if not service.reload_seconds:
        return None
    return Reloader(finder, rooms, settings, installing.contributions, run_dir(service, installing.app.root_path))


def _publish(installing: _Installing, settings: Settings, reloader: Reloader | None) -> KitState:
    contributions = installing.contributions
    alive: dict[str, Contribution[Any]] = {}
    lifecycle = Lifecycle(alive)
    pipeline = Pipeline(installing.app, contributions, lifecycle.start)
    alive.update({"pipeline": Contribution(handle=pipeline, after_fork=pipeline.after_fork)}, **contributions)
    if reloader is not None:
        reloader.then = pipeline.renew
        alive["settings"] = Contribution(
            handle=reloader,
            periodic=reloader.periodic(installing.service.reload_seconds),
            after_fork=reloader.resign,
            close=reloader.resign,
        )
    pipeline.attach()
    return KitState(installing.app, installing.service, settings, contributions, pipeline, lifecycle)
