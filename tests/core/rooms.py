"""Small components for the tests of the core, which knows no real room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask

from flask_prod.core.component import Component, Contribution, HeaderList, Installed
from flask_prod.core.kit import Kit
from flask_prod.core.record import RequestRecord
from flask_prod.core.registry import AnyComponent
from flask_prod.core.settings import Section


def room(
    name: str, section: type[Section] = Section, requires: tuple[str, ...] = (), **parts: Any
) -> AnyComponent:
    """Build a component that contributes *parts*; a part called `install` replaces the method."""
    parts |= parts.pop("parts", {})
    install: Callable[..., Contribution[Any]] | None = parts.pop("install", None)

    class Room(Component[Section, Any]):
        def install(self, app: Flask, settings: Section, kit: Installed) -> Contribution[Any]:
            if install is not None:
                return install(app, settings, kit)
            return Contribution(handle=parts.pop("handle", name), **parts)

    Room.name = name
    Room.requires = requires
    Room.settings = section
    return Room()


def kit_of(*rooms: AnyComponent) -> Kit:
    """Build a kit of these components and no others."""
    kit = Kit(only=[one.name for one in rooms])
    kit._components = {one.name: one for one in rooms}
    return kit


def app_with(*rooms: AnyComponent, **config: Any) -> Flask:
    """Build an application with these components."""
    app = Flask("shop")
    app.config.update(ENVIRONMENT="test", **config)
    kit_of(*rooms).init_app(app)
    return app


def answered(record: RequestRecord, headers: HeaderList) -> RequestRecord:
    """Write into a record what the pass does when an application begins to answer with *headers*."""
    values = {name.lower(): value for name, value in headers}
    record.answered = frozenset(values)
    record.content_type = values.get("content-type", "")
    return record
