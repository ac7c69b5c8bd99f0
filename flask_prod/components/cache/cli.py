"""`flask prod cache`: look into the cache, forget, and fill it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from flask_prod.core.component import Finding
from flask_prod.core.ports import Meter

from .counters import REFUSED, ratio

if TYPE_CHECKING:
    from .backend import SafeBackend
    from .warming import Warming


def cache_command(backend: SafeBackend, warming: Warming, meter: Meter) -> click.Group:
    """Build the commands for one application's cache."""

    @click.group("cache")
    def group() -> None:
        """Look after the cache.

        \b
        Examples:
          flask prod cache stats
          flask prod cache invalidate products product:5
          flask prod cache clear
        """

    group.add_command(_stats(backend, meter))
    for command in (_clear(backend), _get(backend), _delete(backend), _invalidate(backend), _warm(warming)):
        group.add_command(command)
    return group


def _stats(backend: SafeBackend, meter: Meter) -> click.Command:
    @click.command()
    def stats() -> None:
        """Show where entries lie, how many look-ups this host's processes made, and what they found."""
        found = backend.store.probe() or Finding()
        click.echo(f"back end: {backend.store.name}")
        click.echo(f"state: {found.status}{': ' if found.detail else ''}{found.detail}")
        for name, value in ratio(meter).items():
            click.echo(f"{name.replace('_', ' ')}: {value}")
        click.echo(f"refused: {meter.total(REFUSED):.0f}")

    return stats


def _clear(backend: SafeBackend) -> click.Command:
    @click.command()
    def clear() -> None:
        """Forget every entry of this service and environment; others on the same Redis keep theirs."""
        if not backend.clear():
            raise click.ClickException("Redis is away: nothing was cleared. Try again when it is back.")
        click.echo("The cache is empty.")

    return clear


def _get(backend: SafeBackend) -> click.Command:
    @click.command()
    @click.argument("key")
    def get(key: str) -> None:
        """Show the value under KEY as JSON, and for how long it lives."""
        value, ttl = backend.get(key), backend.ttl(key)
        if ttl is None:
            raise click.ClickException(f"There is nothing under {key}{_only_here(backend)}.")
        click.echo(msgspec.json.format(msgspec.json.encode(value, enc_hook=str)).decode())
        click.echo("for ever" if ttl == float("inf") else f"for {ttl:.0f} s", err=True)

    return get


def _delete(backend: SafeBackend) -> click.Command:
    @click.command()
    @click.argument("keys", nargs=-1, required=True)
    def delete(keys: tuple[str, ...]) -> None:
        """Forget what lies under KEYS, pages and memoized results included."""
        gone = [key for key in keys if backend.delete(key)]
        click.echo(f"Forgotten: {', '.join(keys)} ({len(gone)} had a value{_only_here(backend)}).")

    return delete


def _invalidate(backend: SafeBackend) -> click.Command:
    @click.command()
    @click.argument("tags", nargs=-1, required=True)
    def invalidate(tags: tuple[str, ...]) -> None:
        """Forget every entry that carries one of TAGS, in all processes."""
        if not backend.invalidate(*tags):
            raise click.ClickException("Redis is away: the entries are forgotten as soon as it is back.")
        click.echo(f"Forgotten: everything about {', '.join(tags)}.")

    return invalidate


def _warm(warming: Warming) -> click.Command:
    @click.command()
    @click.argument("names", nargs=-1)
    def warm(names: tuple[str, ...]) -> None:
        """Fill the cache: run the functions registered with @prod.cache.warm, or those of these NAMES."""
        known = {one.name: one for one in warming.functions}
        missing = [name for name in names if name not in known]
        if missing:
            raise click.ClickException(
                f"Nothing is registered as {', '.join(missing)}; there is {', '.join(known)}."
            )
        for name in names or known:
            click.echo(f"{name}: {warming.run(known[name]):.2f} s")

    return warm


def _only_here(backend: SafeBackend) -> str:
    return " in this process: CACHE_BACKEND is memory" if backend.store.name == "memory" else ""
