"""`flask prod config`: the effective settings, where each came from, and everything about one of them."""

from __future__ import annotations

import json

import click

from flask_prod.core.explain import Explanation, explain, nearest
from flask_prod.core.kit import KitState
from flask_prod.core.settings import Section, Setting

from .group import load_state
from .table import lines, printable


@click.command()
@click.argument("prefixes", nargs=-1, metavar="[PREFIX]...")
@click.option("--explain", "name", metavar="NAME", help="Tell everything about one setting.")
@click.option("--json", "as_json", is_flag=True, help="Print objects instead of text.")
@click.pass_context
def config(ctx: click.Context, prefixes: tuple[str, ...], name: str | None, as_json: bool) -> None:
    """Show the effective settings and where each came from.

    Secrets appear as fingerprints, addresses without passwords. With PREFIX, only settings whose names begin so.

    \b
    Examples:
      flask prod config
      flask prod config REDIS RATE_LIMIT
      flask prod config --explain REDIS_URL
      flask prod config --json | jq '.[] | select(.origin != "default")'
    """
    state = load_state(ctx)
    if name is not None:
        found = _explained(name.upper(), state)
        click.echo(json.dumps(_as_object(found), indent=2) if as_json else "\n".join(_told(found)))
        return
    settings = state.settings
    rows = [row for row in settings.rows if _wanted(row, prefixes)]
    if as_json:
        shown = [{"key": r.key, "value": settings.shown(r), "origin": r.origin} for r in rows]
        click.echo(json.dumps(shown, indent=2))
        return
    if not rows:
        raise click.ClickException(f"No setting begins with {' or '.join(prefixes)}.")
    cells = [(row.key, settings.shown(row), row.origin) for row in rows]
    click.echo("\n".join(lines(("SETTING", "VALUE", "FROM"), cells, {})))


def _wanted(row: Setting, prefixes: tuple[str, ...]) -> bool:
    return not prefixes or row.key.startswith(tuple(prefix.upper() for prefix in prefixes))


def _explained(name: str, state: KitState) -> Explanation:
    kinds = _kinds(state)
    found = explain(name, kinds, state.settings)
    if found is None:
        near = nearest(name, kinds)
        hint = f"; did you mean {near}?" if near else ". `flask prod settings` lists what there is."
        raise click.ClickException(f"{name} is not a setting{hint}")
    return found


def _kinds(state: KitState) -> list[type[Section]]:
    from flask_prod.deploy.settings import DeploySettings
    from flask_prod.review.settings import CheckSettings
    from flask_prod.server.sums import SurroundingsSettings
    from flask_prod.server.vault import VaultSettings
    from flask_prod.server.web_settings import ServerSettings

    return [
        *state.settings.kinds,
        ServerSettings,
        SurroundingsSettings,
        CheckSettings,
        DeploySettings,
        VaultSettings,
    ]


def _as_object(found: Explanation) -> dict[str, object]:
    doc = found.doc
    return {
        "key": doc.key,
        "others": doc.others,
        "section": _title(found.section),
        "value": found.value,
        "origin": found.origin,
        "said": [{"origin": one.origin, "key": one.key, "value": one.value} for one in found.said],
        "default": doc.default,
        "kind": doc.kind,
        "sentence": doc.sentence,
        "live": found.live,
    }


def _told(found: Explanation) -> list[str]:
    doc = found.doc
    names = f" (or {', '.join(doc.others)})" if doc.others else ""
    changes = "while the service runs" if found.live else "at the next start"
    rows = [
        ("value", found.value or "none"),
        ("from", found.origin),
        *(
            ("overridden", f"{one.value or 'none'} ({_place(one.origin, one.key, doc.key)})")
            for one in found.said[1:]
        ),
        ("default", doc.default or "none"),
        ("may be", doc.kind),
        ("section", _title(found.section)),
        ("a change", f"takes effect {changes}"),
    ]
    width = max(len(name) for name, _ in rows)
    return [
        click.style(doc.key, bold=True) + names,
        doc.sentence,
        *(f"  {name.ljust(width)}  {printable(value)}" for name, value in rows),
    ]


def _place(origin: str, key: str, first: str) -> str:
    return origin if key == first else f"{origin}, as {key}"


def _title(section: type[Section]) -> str:
    return section.__name__.removesuffix("Settings")
