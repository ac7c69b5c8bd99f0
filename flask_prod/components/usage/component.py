"""The usage room: counts on the way, stores every few seconds, one command to read."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from flask import Flask, has_request_context

from flask_prod.core.component import Component, Contribution, Event, HeaderList, Installed, Periodic
from flask_prod.core.ports import RedisPort
from flask_prod.core.record import RequestRecord
from flask_prod.core.run_dir import run_dir
from flask_prod.core.settings import ServiceSettings

from .cli import usage_command
from .engine import CALLER, Tally
from .face import UsageFace
from .settings import UsageSettings
from .stores import FileStore, RedisStore, UsageStore

FLUSH_SECONDS = 10.0


class Usage(Component[UsageSettings, UsageStore]):
    """Remember who uses which route how much."""

    name = "usage"
    after = ("metrics", "redis")
    settings = UsageSettings

    def __init__(self) -> None:
        self._face = UsageFace()

    def face(self) -> UsageFace:
        """Build `prod.usage`."""
        return self._face

    def install(self, app: Flask, settings: UsageSettings, kit: Installed) -> Contribution[UsageStore]:
        """Count from the first request on, unless USAGE_ENABLED is off; what is stored can be read either way."""
        store = _store(settings, kit)
        commands = (usage_command(store, settings),)
        if not settings.enabled:
            return Contribution(handle=store, commands=commands)
        tally = Tally(settings.max_callers, settings.key_header, settings.clients, store.add, partial(_lose, kit))
        return Contribution(
            handle=store,
            headers=self._name_caller,
            steady=True,  # early answers have no request context to ask about
            observe=tally.observe,
            commands=commands,
            periodic=(Periodic("usage", FLUSH_SECONDS, tally.flush),),
            after_fork=tally.after_fork,
            close=tally.close,
        )

    def _name_caller(self, record: RequestRecord, _headers: HeaderList) -> None:
        """Ask the application who the caller is, while it still knows."""
        namer = self._face.namer
        if namer is not None and not record.operational and has_request_context():
            named = namer()
            if named is not None:
                record.environ[CALLER] = str(named)


def _lose(kit: Installed, requests: float) -> None:
    message = f"Usage could not be stored for so long that the oldest part, {requests:g} requests, was given up."
    kit.emit(Event("prod.usage.lost", message, severity="warning", fields={"requests": requests}))


def _store(settings: UsageSettings, kit: Installed) -> UsageStore:
    redis: RedisPort | None = kit.handle("redis")
    if redis is not None and redis.configured:
        return RedisStore(redis, settings.keep, settings.max_callers)
    service, root_path = kit.service, kit.app.root_path
    return FileStore(lambda: _file(settings, service, root_path), settings.keep, settings.max_callers)


def _file(settings: UsageSettings, service: ServiceSettings, root_path: str) -> Path | None:
    if settings.file:
        return Path(settings.file)
    folder = run_dir(service, root_path)
    return folder / "usage.sqlite3" if folder else None
