"""The group `flask prod`: built-in commands, and those that the rooms of the application contribute.

Commands are imported, and the application is loaded, only when needed: every `flask` command imports this.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from flask import Flask, current_app
from flask.cli import FlaskGroup, NoAppException, ScriptInfo
from flask.helpers import get_debug_flag

from flask_prod.core.errors import ProdKitError
from flask_prod.core.kit import Kit, KitState, state_of

BUILT_IN = {
    "audit": "flask_prod.cli.audit:audit_command",
    "check": "flask_prod.cli.check:check",
    "config": "flask_prod.cli.config:config",
    "deploy": "flask_prod.cli.deploy:deploy",
    "drain-test": "flask_prod.cli.drain_test:drain_test",
    "first-start": "flask_prod.cli.first_start:first_start",
    "health": "flask_prod.cli.health:health",
    "init": "flask_prod.cli.init:init",
    "reload": "flask_prod.cli.reload:reload",
    "secret": "flask_prod.cli.secret:secret",
    "settings": "flask_prod.cli.settings:settings",
    "up": "flask_prod.cli.up:up",
}
"""Command -> where it is; these work without an application wherever they can."""

OF_SERVER = {"worker": "flask_prod.server.worker:worker"}
"""Commands that run the application; one of the same name that a room contributes wins."""


HELP = "flask_prod.help"
"""In a context's meta: whether only the help of a command is asked for."""

STAND_IN = "flask_prod.stand_in"
"""In a context's meta: the commands of our rooms, where the application itself cannot be loaded."""


class ProdGroup(click.Group):
    """Finds commands here first, then among the contributions of the application."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names; an application that cannot be loaded is told, and hides only those that need it."""
        names = set(BUILT_IN)
        try:
            names.update(_contributed(ctx), OF_SERVER)
        except (click.ClickException, ProdKitError) as error:
            click.secho(f"{message_of(error)}\n", err=True, fg="red")
            names.update(_of_stand_in(ctx), OF_SERVER if STAND_IN in ctx.meta else ())
        return sorted(names)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is meant; the help of one needs no application that can start."""
        ctx.meta[HELP] = not {*ctx.help_option_names}.isdisjoint(args[1:])
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; the application is loaded for one that is not built in."""
        where = BUILT_IN.get(cmd_name)
        if where is None:
            contributed = self._contribution(ctx, cmd_name)
            where = OF_SERVER.get(cmd_name)
            if contributed is not None or where is None:
                return contributed
        module, _, attribute = where.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def _contribution(self, ctx: click.Context, name: str) -> click.Command | None:
        if STAND_IN in ctx.meta:
            return _of_stand_in(ctx).get(name)
        try:
            return _contributed(ctx).get(name)
        except (click.ClickException, ProdKitError):
            found = _of_stand_in(ctx) if ctx.meta.get(HELP) else {}
            if name not in found and (STAND_IN not in ctx.meta or name not in OF_SERVER):
                raise
            return found.get(name)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; errors that flask-prod raises on purpose end it with their text and exit code 1."""
        try:
            return super().invoke(ctx)
        except ProdKitError as error:
            raise click.ClickException(str(error)) from error


class _Standalone(ProdGroup, FlaskGroup):
    """The same group with Flask's own options (--app, --env-file, --debug) in front."""


@click.group("prod", cls=ProdGroup)
def prod() -> None:
    """Run, inspect and configure this service in production.

    \b
    Examples:
      flask --app shop prod init     give an existing application its kit
      flask prod up                  web, worker and a local Valkey, until Ctrl-C
      flask prod check               is this deployment ready for production?
      flask prod health              is everything well?
      flask prod config RATE_LIMIT   effective settings and where each came from
      flask prod settings HEALTH     what can be set
    """


def main() -> None:
    """Run the console script `flask-prod`, which is `flask prod` under one name."""
    group = _Standalone(name="flask-prod", help=prod.help, add_default_commands=False, add_version_option=False)
    group.main(prog_name="flask-prod")


def load_app(ctx: click.Context) -> Flask:
    """Return the application; a clean ClickException when it cannot be loaded, the traceback with --debug."""
    info = ctx.ensure_object(ScriptInfo)
    try:
        with _unsearched(info):
            return info.load_app()
    except ProdKitError:
        raise
    except Exception as error:
        if get_debug_flag():
            raise
        raise click.ClickException(_why(error, info)) from error


def load_state(ctx: click.Context) -> KitState:
    """Return the kit's state of the application, and enter its context for the rest of the command."""
    app = load_app(ctx)
    state = state_of(app)
    if not current_app or current_app._get_current_object() is not app:  # type: ignore[attr-defined]
        ctx.with_resource(app.app_context())
    return state


def message_of(error: Exception) -> str:
    """Return what a user should read about *error*."""
    return error.format_message() if isinstance(error, click.ClickException) else str(error)


@contextmanager
def _unsearched(info: ScriptInfo) -> Iterator[None]:
    """Import the application without a search for garbage, then and at the end: nearly all of it stays until then.

    The searches were a third of what `flask prod check` cost. An application that is given, as tests do, lives in
    a process that is not a command's own.
    """
    if info.create_app is not None or not gc.isenabled():
        yield
        return
    gc.disable()
    atexit.register(gc.freeze)
    try:
        yield
    finally:
        gc.enable()


def _contributed(ctx: click.Context) -> dict[str, click.Command]:
    return _commands(load_state(ctx))


def _of_stand_in(ctx: click.Context) -> dict[str, click.Command]:
    """Return the commands of our own rooms, where the application cannot say: for their help alone.

    Nothing when the environment itself is wrong: whoever asked for help then reads what is wrong with it.
    """
    if STAND_IN not in ctx.meta:
        app = Flask("help")
        app.config["ENVIRONMENT"] = "test"
        try:
            Kit(app)
        except ProdKitError:
            return {}
        state = state_of(app)
        ctx.call_on_close(state.lifecycle.close)
        ctx.meta[STAND_IN] = _commands(state)
    found: dict[str, click.Command] = ctx.meta[STAND_IN]
    return found


def _commands(state: KitState) -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    for contribution in state.contributions.values():
        for command in contribution.commands:
            name = command.name or ""
            found[name] = _joined(found.get(name), command)
    return found


def _joined(before: click.Command | None, command: click.Command) -> click.Command:
    """Return a group with the commands of both where several rooms contribute to one group, else the later one."""
    if not isinstance(before, click.Group) or not isinstance(command, click.Group):
        return command
    commands = {**before.commands, **command.commands}
    helps = [group.help for group in (before, command) if group.help]
    return click.Group(before.name, commands=commands, help="\n\n".join(dict.fromkeys(helps)))


def _why(error: Exception, info: ScriptInfo) -> str:
    """Say in a line or two why an application cannot be loaded, and where in its code."""
    cause: BaseException = error
    if isinstance(error, NoAppException):
        if not isinstance(error.__context__, ImportError) or error.__context__.__traceback__ is None:
            return error.format_message()
        cause = error.__context__
    frames = traceback.extract_tb(cause.__traceback__)
    place = next((f" ({frame.filename}, line {frame.lineno})" for frame in reversed(frames) if _theirs(frame)), "")
    if isinstance(error, NoAppException) and not place:
        return error.format_message()
    name = info.app_import_path or "the application"
    return (
        f"{name} cannot be loaded: {type(cause).__name__}: {cause}{place}\n"
        "The same command with `flask --debug` in front shows the traceback."
    )


def _theirs(frame: traceback.FrameSummary) -> bool:
    installed = (sys.prefix, sys.base_prefix, importlib.__file__.rpartition("/")[0])
    return not frame.filename.startswith(("<", *installed)) or frame.filename == "app.py"
