"""`flask prod limits`: what is left for a client, and a fresh start for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from flask_prod.core.errors import Unavailable

if TYPE_CHECKING:
    from .limits import AppLimits


def limits_command(limits: AppLimits) -> click.Group:
    """Build the commands for one application's limits."""

    @click.group("limits")
    def group() -> None:
        """Show and reset the rate limits of a client.

        \b
        Examples:
          flask prod limits status 203.0.113.7
          flask prod limits status user:42
          flask prod limits reset 203.0.113.7 --policy checkout
        """

    @group.command()
    @click.argument("client")
    def status(client: str) -> None:
        """Show what is left for CLIENT: an address, or user:ID."""
        try:
            found = limits.status(client)
        except Unavailable as error:
            raise click.ClickException(f"{error}. The counters are in Redis.") from error
        click.echo(f"{'policy':<16} {'left':>8} {'of':>8} {'window':>8}  blocked")
        for name, policy in found.policies.items():
            blocked = f"{policy.blocked} s" if policy.blocked else "no"
            window = f"{policy.window:g} s"
            click.echo(f"{name:<16} {policy.remaining:>8} {policy.points:>8} {window:>8}  {blocked}")
        if not found.shared:
            click.echo(
                "There is no REDIS_URL: every process counts by itself, and this one has served nothing.", err=True
            )

    @group.command()
    @click.argument("client")
    @click.option("--policy", help="Reset this policy alone.")
    def reset(client: str, policy: str | None) -> None:
        """Forget what was counted for CLIENT, and lift its blocks."""
        try:
            count = limits.reset(client, policy)
        except Unavailable as error:
            raise click.ClickException(f"{error}. The counters are in Redis.") from error
        click.echo(f"{count} counter{'' if count == 1 else 's'} forgotten.")

    return group
