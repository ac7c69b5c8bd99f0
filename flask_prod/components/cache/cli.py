"""`flask prod cache`: forget what was cached."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from .backend import SafeBackend


def cache_command(backend: SafeBackend) -> click.Group:
    """Build the commands for one application's cache."""

    @click.group("cache")
    def group() -> None:
        """Look after the cache.

        \b
        Example:
          flask prod cache clear
        """

    @group.command()
    def clear() -> None:
        """Forget every entry of this service and environment; others on the same Redis keep theirs."""
        if backend.store.name == "memory":
            raise click.ClickException("The cache lives in the memory of each worker: restart them to empty it.")
        if not backend.clear():
            raise click.ClickException("Redis is away: nothing was cleared. Try again when it is back.")
        click.echo("The cache is empty.")

    return group
