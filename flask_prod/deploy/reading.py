"""A plan is read from the application as it would be in production.

Settings of this machine (environment, .env, secret files) do not count: a laptop's PORT is no cluster's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from flask_prod.components.migrations.folder import find_folder
from flask_prod.core.errors import ConfigError
from flask_prod.core.kit import KitState
from flask_prod.core.settings import (
    Section,
    ServiceSettings,
    Settings,
    Source,
    key_names,
    peek,
    read_settings,
)
from flask_prod.core.settings_doc import written
from flask_prod.core.sources import find_sources
from flask_prod.core.values import Secret, SecretUrl
from flask_prod.server.sums import SurroundingsSettings
from flask_prod.server.web_settings import ServerSettings

from .own import own_metrics
from .plan import Plan
from .settings import DeploySettings

NOWHERE = "/dev/null"
"""No file of settings, and no folder of secrets."""


def read_plan(
    state: KitState, entry: str, flask_app: str, environment: str = "production", folder: str = "deploy"
) -> Plan:
    """Return the plan of an application for *environment*; entry and FLASK_APP are what the user would type."""
    environ = {"ENVIRONMENT": environment, "ENV_FILE": NOWHERE, "SECRETS_DIR": NOWHERE}
    kinds: list[type[Section]] = list(
        dict.fromkeys((*state.settings.kinds, ServerSettings, SurroundingsSettings, DeploySettings))
    )
    sources = find_sources(_of_code(state, kinds), Path(state.app.root_path), environ, remote=None)
    sections: dict[type[Section], Section] = {}
    problems: list[str] = []
    for kind in kinds:
        sections[kind], wrong = _section(kind, sources)
        problems += wrong
    settings = Settings(sections, ())
    said = _said(kinds, sections, sources)
    service = settings.section(ServiceSettings)
    values = {key: value for kind in sections for key, value in _values(kind, sections[kind])}
    return Plan(
        environment=environment,
        entry=entry,
        flask_app=flask_app,
        root=Path.cwd(),
        service=_named(service, state),
        server=settings.section(ServerSettings),
        around=settings.section(SurroundingsSettings),
        deploy=settings.section(DeploySettings),
        values=values,
        said=said,
        rooms=frozenset(state.contributions),
        static=f"{state.app.static_url_path}/" if state.app.has_static_folder else "",
        prepare=_prepare(state, values.get("MIGRATIONS_DIR", "")),
        home=Path(state.app.root_path),
        folder=folder,
        own_metrics=own_metrics(state),
        problems=problems,
    )


def _of_code(state: KitState, kinds: Sequence[type[Section]]) -> dict[str, Any]:
    """Return what app.config says without secrets, and without what this machine's environment says of itself."""
    first = next((source for source in state.settings.sources if source.name == "app.config"), None)
    secret = {row.key for row in state.settings.rows if isinstance(row.value, Secret)}
    names = {name for kind in kinds for name in _names(kind)} - secret - {"ENVIRONMENT"}
    return {key: value for key, value in (first.values if first else {}).items() if key in names}


def _names(kind: type[Section]) -> set[str]:
    return {name for field in kind.__struct_fields__ for name in key_names(kind, field)}


def _section(kind: type[Section], sources: Sequence[Source]) -> tuple[Section, Sequence[str]]:
    """Return one section and what is wrong with it: defaults stand in for the fields that are."""
    names = _names(kind)
    only = [Source(s.name, {n: v for n, v in s.values.items() if n in names}) for s in sources]
    try:
        return read_settings([kind], only).section(kind), ()
    except ConfigError as error:
        return kind(**{field: peek(only, kind, field) for field in kind.__struct_fields__}), error.problems


def _values(kind: type[Section], section: Section) -> list[tuple[str, Any]]:
    return [(key_names(kind, field)[0], getattr(section, field)) for field in kind.__struct_fields__]


def _said(
    kinds: Sequence[type[Section]], sections: Mapping[type[Section], Section], sources: Sequence[Source]
) -> dict[str, str]:
    """Return what the project's own profile files set, as a variable of the environment would be typed."""
    typed = {key for s in sources if s.name.startswith("config/") for key in s.values}
    found = {}
    for kind in kinds:
        for field in kind.__struct_fields__:
            for name in typed.intersection(key_names(kind, field)):
                value = getattr(sections[kind], field)
                if not isinstance(value, Secret | SecretUrl):
                    found[name] = written(value, kind.__annotations__.get(field, object))
    return found


def _named(service: ServiceSettings, state: KitState) -> ServiceSettings:
    if service.service_name:
        return service
    return replace(service, service_name=state.service.service_name)


def _prepare(state: KitState, folder: str) -> str:
    """Return the command that migrates: the application's own `prepare`, else the kit's where it has any."""
    if "prepare" in state.app.cli.commands:
        return "flask prepare"
    there = "migrations" in state.contributions and find_folder(folder, Path(state.app.root_path))
    return "flask prod db upgrade --yes" if there else ""
