"""The logs room: the request line, the events, and a bridge from Python's `logging`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import click

from flask_prod.core.component import Component, Contribution, Installed, Periodic
from flask_prod.core.errors import ConfigError
from flask_prod.core.run_dir import Leader, run_dir
from flask_prod.core.secrets import secrets_of

from .bridge import RootHandler, root_handler, without_default_handler
from .cli import level_command, trace_command
from .engine import AppLog
from .face import ServiceLog
from .levels import Board
from .lines import FORMATS
from .output import FileOutput, Output
from .settings import LogSettings
from .watch import LevelWatch

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
        log = AppLog(settings, kit.service, FORMATS[settings.format], output.write, kit.emit)
        log.own = partial(secrets_of, app)
        output.notice = log.missing
        board = Board(lambda: run_dir(kit.service, app.root_path), lambda: kit.handle("redis"))
        handler = root_handler()
        room = _Room(log, output, board, handler)
        handler.join(log, output.reopen)
        without_default_handler(app.logger)
        if command_name() == "worker":  # nobody calls `start` there; a signal without a handler would end it
            handler.listen()
        return Contribution(
            handle=log,
            observe=log.observe,
            on_event=log.on_event,
            commands=(level_command(board, log.configured), trace_command(settings.output)),
            reload=room.prepare,
            start=room.start,
            periodic=(Periodic("logs", 1.0, room.look), Periodic("log level of other hosts", 10.0, room.look_far)),
            after_fork=room.after_fork,
            close=room.close,
        )


class _Room:
    """The life of one application's log in one process."""

    def __init__(self, log: AppLog, output: Output, board: Board, handler: RootHandler) -> None:
        self._log = log
        self._output = output
        self._board = board
        self._handler = handler
        self._watch: LevelWatch | None = None

    def start(self) -> None:
        """Begin to serve: hear the signal to reopen files, and obey the order of a level that is in force."""
        self._handler.listen()
        self._handler.adopt()
        self._watching().look_elsewhere()
        self._watching().look()

    def prepare(self, settings: LogSettings) -> Callable[[], None]:
        """Return what puts a changed level in force."""

        def adopt() -> None:
            self._log.adopt(settings)
            self._handler.set_level()

        return adopt

    def look(self) -> None:
        """Do what is due every second."""
        self._watching().look()
        self._log.tell_held_back(self._log.sparing.ended(monotonic()))
        self._output.settle()

    def look_far(self) -> None:
        """Do what is due every ten seconds."""
        self._watching().look_elsewhere()

    def after_fork(self) -> None:
        """Renew what a child must not share, and obey the order in force: a job's process lives by this alone."""
        self._output.after_fork()
        self._log.sparing.after_fork()
        self._handler.adopt()
        self._watching().after_fork()

    def close(self) -> None:
        """Give back what belongs to the process, and close the output."""
        if self._watch is not None:
            self._watch.close()
        self._handler.leave(self._log)
        self._output.close()

    def _watching(self) -> LevelWatch:
        if self._watch is None:
            folder = None if self._board.path is None else self._board.path.parent
            leader = Leader(folder, "log-level")
            self._watch = LevelWatch(self._log, self._board, leader, self._handler.set_level)
        return self._watch


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
    name = command_name()
    return name is not None and name not in _SERVING


def command_name() -> str | None:
    """Return the name of the command that builds this application; None when none does."""
    context = click.get_current_context(silent=True)
    return None if context is None else context.info_name
