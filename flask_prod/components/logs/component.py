"""The logs room: the request line, the events, and a bridge from Python's `logging`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flask_prod.core.component import Component, Contribution, Installed
from flask_prod.core.errors import ConfigError

from .bridge import root_handler, without_default_handler
from .engine import AppLog
from .face import ServiceLog
from .lines import as_console, as_json
from .output import FileOutput, Output
from .settings import LogSettings

if TYPE_CHECKING:
    from flask import Flask

_SERVING = frozenset({"run", "worker", "up"})


class Logs(Component[LogSettings, AppLog]):
    """Write one line per request and per event, and give the application's own lines their context."""

    name = "logs"
    settings = LogSettings

    def face(self) -> ServiceLog:
        """Build `prod.log`."""
        return ServiceLog()

    def install(self, app: Flask, settings: LogSettings, kit: Installed) -> Contribution[AppLog]:
        """Open the output and join the process's handler; ConfigError for a file that cannot be opened."""
        dropped = kit.meter.counter("flask_prod_log_lines_dropped_total", "Log lines that found no room")
        output = open_output(settings.output, dropped.inc)
        log = AppLog(settings, kit.service, as_json if settings.format == "json" else as_console, output.write)
        handler = root_handler()
        handler.join(log)
        without_default_handler(app.logger)

        def close() -> None:
            handler.leave(log)
            output.close()

        return Contribution(
            handle=log,
            observe=log.observe,
            on_event=log.on_event,
            after_fork=output.after_fork if isinstance(output, FileOutput) else None,
            close=close,
        )


def open_output(name: str, on_drop: Callable[[], None]) -> Output:
    """Open where lines go. What a command prints is its answer, so its lines go to stderr instead of stdout."""
    if name in ("stdout", "stderr"):
        return Output(2 if name == "stderr" or in_command() else 1, on_drop)
    try:
        return FileOutput(Path(name), on_drop)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError([f"LOG_OUTPUT names {name}, which cannot be written: {reason}."]) from error


def in_command() -> bool:
    """Tell whether a command of the command line builds this application, and not a server."""
    context = click.get_current_context(silent=True)
    return context is not None and context.info_name not in _SERVING
