"""`flask prod deploy ready`: what must hold before a deployment."""

from __future__ import annotations

from pathlib import Path

import click

from flask_prod.deploy.checked import good
from flask_prod.deploy.ready import Readiness

from .deploy_verify import as_text, shown
from .group import load_state


@click.command("ready")
@click.option("--image", default="", metavar="NAME", help="The image to deploy: does the registry have it?")
@click.option(
    "--cosign", default="", metavar="WORDS", help='Who signed it: "--key cosign.pub", or identity and issuer.'
)
@click.option(
    "--config-before", "before", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="`flask prod config --json` of the release that serves now: tells what changes.",
)  # fmt: skip
@click.option("--disk", type=click.FloatRange(0, 100), default=10.0, show_default=True, help="Percent to be free.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
@click.pass_context
def ready(ctx: click.Context, image: str, cosign: str, before: Path | None, disk: float, as_json: bool) -> None:
    """Say whether this release may be deployed here: to be run by it, with the settings that it will have.

    Findings of `flask prod check`, disk, database, Redis, pending migrations, the age of the backup, image and
    signature, changed settings: a line each. Exits with 1 when one fails; a warning is for people to read.

    \b
    Examples:
      flask prod deploy ready
      flask prod deploy ready --image registry.example.com/shop:1.4.2 --cosign "--key cosign.pub"
      flask prod deploy ready --config-before running.json --json
    """
    wanted = Readiness(state=load_state(ctx), image=image, cosign=cosign, before=before, disk=disk)
    results = list(shown(wanted.results(), as_json))
    if as_json:
        click.echo(as_text({"image": image}, results))
    ctx.exit(0 if good(results) else 1)
