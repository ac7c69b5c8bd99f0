"""`flask prod settings`: everything that can be set."""

from __future__ import annotations

import dataclasses
import json

import click

from flask_prod.core.settings_doc import SectionDoc, built_in_sections, describe, to_markdown
from flask_prod.deploy.settings import DeploySettings
from flask_prod.review.settings import CheckSettings
from flask_prod.server.gunicorn import ServerSettings
from flask_prod.server.sums import SurroundingsSettings
from flask_prod.server.vault import VaultSettings

from .table import lines


@click.command()
@click.argument("prefixes", nargs=-1, metavar="[PREFIX]...")
@click.option("--markdown", is_flag=True, help="Print the settings page of the documentation.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of rooms with their settings.")
def settings(prefixes: tuple[str, ...], markdown: bool, as_json: bool) -> None:
    """List every setting: its kind of value, its default, and what it does.

    No application is needed. With PREFIX, only settings whose names begin so.

    \b
    Examples:
      flask prod settings
      flask prod settings CACHE
      flask prod settings --markdown > docs/settings.md
    """
    everything = (
        *built_in_sections(),
        describe("server", ServerSettings),
        describe("surroundings", SurroundingsSettings),
        describe("check", CheckSettings),
        describe("deploy", DeploySettings),
        describe("vault", VaultSettings),
    )
    sections = [section for one in everything if (section := _only(one, prefixes))]
    if markdown:
        click.echo(to_markdown(sections), nl=False)
    elif as_json:
        click.echo(json.dumps([dataclasses.asdict(section) for section in sections], indent=2))
    elif not sections:
        raise click.ClickException(f"No setting begins with {' or '.join(prefixes)}.")
    else:
        click.echo("\n\n".join(_text(section) for section in sections))


def _only(section: SectionDoc, prefixes: tuple[str, ...]) -> SectionDoc | None:
    """Return the section with the settings that are wanted; None when there are none."""
    starts = tuple(prefix.upper() for prefix in prefixes)
    rows = tuple(row for row in section.settings if not starts or row.key.startswith(starts))
    return dataclasses.replace(section, settings=rows) if rows else None


def _text(section: SectionDoc) -> str:
    head = click.style(section.room, bold=True) + f": {section.sentence}"
    rows = [(row.key, row.kind, row.default or "none", row.sentence) for row in section.settings]
    return "\n".join([head, *lines(("SETTING", "VALUE", "DEFAULT", "WHAT IT DOES"), rows, {})])
