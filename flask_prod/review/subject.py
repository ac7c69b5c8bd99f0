"""What the rules may ask: settings with their origin, app.config, environment, files, and how it is served."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from flask import Flask

from flask_prod.core.errors import ConfigError
from flask_prod.core.kit import KitState
from flask_prod.core.redaction import is_sensitive
from flask_prod.core.settings import Section, Settings, Source, key_names, read_settings, show
from flask_prod.core.values import Secret, SecretUrl
from flask_prod.server.budget import planned
from flask_prod.server.sums import Serving, SurroundingsSettings
from flask_prod.server.web_settings import ServerSettings, worker_count

from .gunicorn_file import GunicornFile
from .settings import CheckSettings

HOMELY = ("development", "test")


@dataclass
class Subject:
    """One deployment: the kit's state of an application, None when it cannot start, and what is around it.

    `problems` are the sentences of a ConfigError. `folder` is where the service is started.
    """

    state: KitState | None
    folder: Path = field(default_factory=Path.cwd)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    problems: Sequence[str] = ()
    now: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self.values: dict[str, Any] = {}
        self._origins: dict[str, str] = {}
        self.answers: dict[str, Any] = {}  # of servers that are asked once for several rules
        if self.state is not None:
            self._take(self.state.settings)
            self.problems = (*self.problems, *self._take_others(self.state.settings.sources))
        # At once, since it may be for this check only; also of an application that cannot start.
        self.environment = str(self.get("ENVIRONMENT") or self.environ.get("ENVIRONMENT") or "production")

    @property
    def app(self) -> Flask | None:
        """The application; None when it cannot start."""
        return None if self.state is None else self.state.app

    def has(self, *keys: str) -> bool:
        """Tell whether the application has all of these settings: rooms may be left out."""
        return all(key in self.values for key in keys)

    def get(self, key: str, default: Any = None) -> Any:
        """Return a setting by the first of its names; *default* where its room is left out."""
        return self.values.get(key, default)

    def text(self, key: str) -> str:
        """Return a setting as text, also a secret one, which must not be shown."""
        value = self.values.get(key) or ""
        return value.reveal() if isinstance(value, Secret) else str(value)

    def origin(self, key: str) -> str:
        """Return where a setting comes from: `environment`, `config/production.toml`, `default`."""
        return self._origins.get(key, "default")

    def said(self, key: str) -> str:
        """Return a setting as a piece of evidence: `LOG_LEVEL is DEBUG (environment)`, secrets as fingerprints."""
        value = self.values.get(key)
        shown = str(value).lower() if isinstance(value, bool) else show(value)
        return f"{key} is {shown or 'empty'} ({self.origin(key)})"

    def config(self, key: str, default: Any = None) -> Any:
        """Return a value of app.config that is no setting of the kit."""
        return default if self.app is None else self.app.config.get(key, default)

    def uses(self, extension: str) -> bool:
        """Tell whether the application has a Flask extension."""
        return self.app is not None and extension in self.app.extensions

    @property
    def uses_login(self) -> bool:
        """Tell whether the application has Flask-Login, which is no entry of `app.extensions`."""
        return self.uses("login") or hasattr(self.app, "login_manager")

    @cached_property
    def secrets(self) -> dict[str, str]:
        """Every secret by the name it is set under; addresses are not among them."""
        found = {key: value.reveal() for key, value in self.values.items() if _is_plain(value)}
        for key, value in self.values.items():
            if isinstance(value, tuple):
                numbered = ((n, one) for n, one in enumerate(value, 1) if _is_plain(one))
                found.update((f"{key} (number {n})", one.reveal()) for n, one in numbered)
        for key, value in (self.app.config if self.app is not None else {}).items():
            if key not in self.values and is_sensitive(key) and isinstance(value, str | bytes) and _holds(key):
                found[key] = value if isinstance(value, str) else value.decode(errors="replace")
        return {key: value for key, value in found.items() if value}

    @cached_property
    def addresses(self) -> dict[str, str]:
        """Every secret address by the name it is set under."""
        found: dict[str, str] = {}
        for key, value in self.values.items():
            many = value if isinstance(value, tuple) else (value,)
            found.update((key, one.reveal()) for one in many if isinstance(one, SecretUrl) and one)
        uri = self.config("SQLALCHEMY_DATABASE_URI")
        if isinstance(uri, str) and uri not in found.values():
            found["SQLALCHEMY_DATABASE_URI"] = uri
        return found

    @cached_property
    def database(self) -> tuple[str, str]:
        """The name and the address of the database, empty where none is named."""
        for key in ("DATABASE_URL", "SQLALCHEMY_DATABASE_URI"):
            if key in self.addresses:
                return key, self.addresses[key]
        return "DATABASE_URL", ""

    @property
    def uses_database(self) -> bool:
        """Tell whether the application is known to store anything in a database."""
        if self.database[1] or self.uses("sqlalchemy"):
            return True
        migrations = self.state.contributions.get("migrations") if self.state else None
        return migrations is not None and bool(migrations.checks)

    @cached_property
    def gunicorn(self) -> GunicornFile:
        """What gunicorn.conf.py and GUNICORN_CMD_ARGS say, as far as it can be told without running them."""
        return GunicornFile.read(self.folder, self.environ)

    @cached_property
    def serving(self) -> Serving:
        """How gunicorn will serve: its own file wins over our settings."""
        said = self.gunicorn.values
        workers = said.get("workers") or self.get("WEB_CONCURRENCY") or worker_count()
        kind = str(said.get("worker_class") or self.get("WEB_WORKER_CLASS") or "gthread")
        plan = planned(self.values, int(workers), kind)
        return Serving(
            kind,
            int(workers),
            int(said.get("threads") or plan.threads),
            float(said.get("timeout", plan.timeout)),
            float(said.get("graceful_timeout", plan.grace)),
            float(said.get("keepalive", plan.keepalive)),
        )

    def hidden(self, text: str) -> str:
        """Return *text* with every secret of the settings starred out."""
        return text if self.state is None else self.state.settings.hidden(text)

    def profile_files(self) -> Iterator[Path]:
        """Yield the profile files that the settings were read from."""
        if self.state is None:
            return
        root = Path(self.state.app.root_path)
        given = self.environ.get("CONFIG_DIR")
        folders = [Path(given)] if given else [self.folder / "config", root.parent / "config", root / "config"]
        for source in self.state.settings.sources:
            name = source.name.removeprefix("config/")
            if name != source.name:
                yield from [folder / name for folder in folders if (folder / name).is_file()][:1]

    def _take(self, settings: Settings) -> None:
        origins = {row.key: row.origin for row in settings.rows}
        for kind in settings.kinds:
            section = settings.section(kind)
            for name in kind.__struct_fields__:
                names = key_names(kind, name)
                self.values.setdefault(names[0], getattr(section, name))
                self._origins.setdefault(names[0], next((origins[n] for n in names if n in origins), "default"))

    def _take_others(self, sources: Sequence[Source]) -> Iterator[str]:
        """Take the sections that the application does not read itself; yield what is wrong with them."""
        for kind in (ServerSettings, SurroundingsSettings, CheckSettings):
            names = {name for field in kind.__struct_fields__ for name in key_names(kind, field)}
            only = [Source(s.name, {n: v for n, v in s.values.items() if n in names}) for s in sources]
            try:
                self._take(read_settings([kind], only))
            except ConfigError as error:
                self._take(Settings({kind: _defaults(kind)}, ()))
                yield from error.problems


def _defaults(kind: type[Section]) -> Section:
    return kind()


def _is_plain(value: object) -> bool:
    return isinstance(value, Secret) and not isinstance(value, SecretUrl)


def _holds(key: str) -> bool:
    """Tell whether a sensitive name of app.config holds a secret rather than something about one."""
    return key.endswith(("SECRET_KEY", "_SECRET", "_PASSWORD", "_TOKEN", "_API_KEY"))
