"""The first step of `flask prod up`, in a process of its own: load the application, prepare it, tell what it has.

The supervisor itself never loads the application: it stays small, and restarts nothing but processes.
"""

from __future__ import annotations

import json
import os
from typing import Any

import click
import msgspec
from flask.cli import ScriptInfo

from flask_prod.core.kit import KitState

from .group import load_state

PREPARE = "prepare"
"""The application's own command that makes its database ready; run once, before web and worker start."""


class Facts(msgspec.Struct, frozen=True):
    """What the supervisor must know of an application."""

    service: str
    """Its SERVICE_NAME, under which gunicorn's master logs too, which does not load the application."""

    probe: str | None
    """The path of the liveness probe; None without the health room."""

    worker: bool
    """Whether there is a `flask prod worker`."""

    workers: int
    """How many worker processes that is: JOBS_WORKERS."""

    prepared: bool
    """Whether the application has a `prepare` command, which has been run."""


@click.command("first-start", hidden=True)
@click.option("--facts", type=int, metavar="FD", help="The file descriptor to write what was found to.")
@click.pass_context
def first_start(ctx: click.Context, facts: int | None) -> None:
    """Load the application, run its `prepare` command if it has one, and tell what it has."""
    state = load_state(ctx)
    found = msgspec.to_builtins(look(state, prepared=_prepare(ctx, state)))
    if facts is None:
        click.echo(json.dumps(found))
    else:
        os.write(facts, json.dumps(found).encode())


def look(state: KitState, prepared: bool) -> Facts:
    """Return what an application has."""
    values: dict[str, Any] = {row.key: row.value for row in state.settings.rows}
    path = values.get("HEALTH_PATH")
    return Facts(
        service=state.service.service_name,
        probe=f"{path}/live" if path else None,
        worker=_has_worker(state),
        workers=values.get("JOBS_WORKERS", 1),
        prepared=prepared,
    )


def _has_worker(state: KitState) -> bool:
    """Say whether `flask prod worker` has something to do: a command of a room's own, or jobs and a Redis."""
    if any(command.name == "worker" for one in state.contributions.values() for command in one.commands):
        return True
    jobs = state.contributions.get("jobs")
    return jobs is not None and bool(jobs.handle.redis.configured)


def _prepare(ctx: click.Context, state: KitState) -> bool:
    command = state.app.cli.get_command(ctx, PREPARE)
    if command is None:
        return False
    info = ctx.ensure_object(ScriptInfo)
    try:
        command.main([], prog_name=f"flask {PREPARE}", standalone_mode=False, obj=info)
    except click.ClickException:
        raise
    except Exception as error:
        raise click.ClickException(
            f"`flask {PREPARE}` failed: {type(error).__name__}: {error}\n"
            f"Run `flask {PREPARE}` alone to see where; nothing has been started."
        ) from error
    return True
