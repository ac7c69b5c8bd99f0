"""`flask prod reload`: let a running service look for changed settings now."""

from __future__ import annotations

from pathlib import Path

import click

from flask_prod.core.reload_board import Board
from flask_prod.core.run_dir import run_dir

from .group import load_state
from .table import printable


@click.command("reload")
@click.option("--timeout", type=click.FloatRange(0.1, 60), default=5.0, show_default=True, help="Seconds to wait.")
@click.pass_context
def reload(ctx: click.Context, timeout: float) -> None:
    """Let the service that runs on this host take over changed settings now, and tell what changed.

    It does so by itself when a file changes. Exits with 1 when the settings are refused, or nobody answers.

    \b
    Examples:
      flask prod reload
    """
    state = load_state(ctx)
    folder: Path | None = run_dir(state.service, state.app.root_path)
    report = Board(folder).ask(timeout)
    if report is None:
        raise click.ClickException(
            f"No service called {state.service.service_name} answered within {timeout:g} s on this host. "
            "Does it run, under the same user, ENVIRONMENT and RUN_DIR, and with RELOAD_SECONDS above 0?"
        )
    if report.refused:
        lines = "\n".join(f"  - {printable(problem)}" for problem in report.refused)
        raise click.ClickException(f"The settings are refused, nothing was changed:\n{lines}")
    for change in report.changed:
        click.echo(f"changed  {printable(change)}")
    for change in report.waiting:
        click.echo(f"waits    {printable(change)} (takes effect at the next start)")
    if not (report.changed or report.waiting):
        click.echo("Nothing has changed.")
