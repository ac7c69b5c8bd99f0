"""Run Alembic with the user's env.py, whatever that does about connections."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from flask import Flask

from flask_prod.core.errors import MissingExtra

from .folder import Folder, Revisions

logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)  # it greets with a dozen lines
try:
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory
    from sqlalchemy import Connection, Engine
except ImportError as error:
    raise MissingExtra("migrations", "alembic", "migrations") from error

Prepare = Callable[[Connection, dict[str, Any]], None]
Steps = Callable[[Any, Any], Iterable[Any]]


def environment_of(
    config: Config, script: ScriptDirectory, prepare: Prepare | None, **options: Any
) -> EnvironmentContext:
    """Return Alembic's environment, in which *prepare* sees each connection that env.py brings.

    No subclass: `alembic.context` stands for instances of the class itself.
    """
    environment = EnvironmentContext(config, script, **options)
    configure = environment.configure

    def configured(connection: Connection | None = None, *arguments: Any, **given: Any) -> None:
        if connection is not None and prepare is not None:
            prepare(connection, given)
        configure(connection, *arguments, **given)

    environment.configure = configured  # type: ignore[method-assign]
    return environment


def config_of(folder: Folder, engine: Engine, connection: Connection | None) -> Config:
    """Return Alembic's configuration: the user's alembic.ini if there is one, our database in any case."""
    config = Config(None if folder.ini is None else str(folder.ini), output_buffer=io.StringIO())
    config.set_main_option("script_location", _escaped(folder.path))
    if folder.plain:
        config.set_main_option("path_separator", "os")
        config.set_main_option("version_locations", _escaped(folder.versions))
    config.set_main_option("sqlalchemy.url", _escaped(engine.url.render_as_string(hide_password=False)))
    if connection is not None:
        config.attributes["connection"] = connection
    return config


def scripts_of(config: Config) -> ScriptDirectory:
    """Return the scripts."""
    return ScriptDirectory.from_config(config)


def revisions_by_alembic(folder: Folder) -> Revisions:
    """Return the revisions where alembic.ini names several places."""
    config = Config(str(folder.ini))
    config.set_main_option("script_location", _escaped(folder.path))
    script = ScriptDirectory.from_config(config)
    return Revisions(frozenset(one.revision for one in script.walk_revisions()), frozenset(script.get_heads()))


def run_env(
    app: Flask, folder: Folder, config: Config, steps: Steps, prepare: Prepare | None = None, **options: Any
) -> str:
    """Run env.py, or what stands for one, with *steps* as its work; return the SQL of the offline mode."""
    script = scripts_of(config)
    with (
        kept_logging(),
        app.app_context(),
        environment_of(config, script, prepare, fn=steps, **options) as environment,
    ):
        if folder.has_env:
            script.run_env()
        else:
            _stand_in(app, environment, config.attributes.get("connection"))
    buffer = config.output_buffer
    return buffer.getvalue() if isinstance(buffer, io.StringIO) else ""


def metadata_of(app: Flask) -> Sequence[Any]:
    """Return the metadata of Flask-SQLAlchemy's models, if the application has such."""
    extension = app.extensions.get("sqlalchemy")
    found = getattr(extension, "metadata", None)
    return () if found is None else (found,)


def _stand_in(app: Flask, environment: EnvironmentContext, connection: Connection | None) -> None:
    """Do what env.py does, for folders without one: Flask-Alembic's."""
    environment.configure(
        connection=connection, target_metadata=list(metadata_of(app)), literal_binds=environment.is_offline_mode()
    )
    with environment.begin_transaction():
        environment.run_migrations()


@contextmanager
def kept_logging() -> Iterator[None]:
    """Undo what `fileConfig` of an env.py does to the logging of the whole process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    loggers = [one for one in root.manager.loggerDict.values() if isinstance(one, logging.Logger)]
    enabled = [one for one in loggers if not one.disabled]
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        for logger in enabled:
            logger.disabled = False


def _escaped(value: object) -> str:
    """Return a value as configparser wants it."""
    return str(value).replace("%", "%%")
