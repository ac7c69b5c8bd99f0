"""`flask prod limits`: what is left for a client, and a fresh start for one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from flask_prod.core.errors import Unavailable

if TYPE_CHECKING:
    from .limits import AppLimits


def limits_command(limits: AppLimits) -> click.Group:
    """Build the commands for one application's limits."""

    @click.group("limits")
    def group() -> None:
        """Show, reset and use up the rate limits of a client.

        \b
        Examples:
          flask prod limits status 203.0.113.7
          flask prod limits status user:42
          flask prod limits reset 203.0.113.7 --policy checkout
          flask prod limits consume user:42 export --cost 5
        """

    @group.command()
    @click.argument("client")
    def status(client: str) -> None:
        """Show what is left for CLIENT: an address, user:ID, or key:SECRET."""
        with _explained():
            found = limits.status(client)
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
        with _explained():
            count = limits.reset(client, policy)
        click.echo(f"{count} counter{'' if count == 1 else 's'} forgotten.")

    @group.command()
    @click.argument("client")
    @click.argument("policy")
    @click.option("--cost", type=click.IntRange(min=0), help="Points to take; as the policy says by default.")
    def consume(client: str, policy: str, cost: int | None) -> None:
        """Count one request of CLIENT under POLICY; exits with 1 when it is refused."""
        with _explained():
            decision = limits.consume(policy, client, cost)
        if not decision.allowed:
            raise click.ClickException(f"Refused for {decision.retry_after} s.")
        click.echo(f"Allowed, {decision.remaining} left.")

    return group


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what may go wrong into a sentence and an exit code."""
    try:
        yield
    except Unavailable as error:
        raise click.ClickException(f"{error}. The counters are in Redis.") from error
    except ValueError as error:
        raise click.ClickException(str(error)) from error
