"""Commands of the shop: `flask prepare` before a start, `flask create-admin`, `flask send-pending-mails`."""

from __future__ import annotations

import click
from flask import Flask, abort, current_app
from flask.cli import with_appcontext
from sqlalchemy import inspect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from flask_prod import ProdKitError
from flask_prod.components.migrations import MigrationError

from .accounts import SHORTEST_PASSWORD, create_user, hash_password
from .extensions import prod
from .fields import Fields, Invalid
from .jobs import send_pending
from .seed import seed, seed_demo_admin
from .settings import shop_settings


def prepare_database() -> int:
    """Upgrade the database and fill a new shop; return how many products were added.

    One process at a time does so: run it as often as you like, by as many as you like. MigrationError when a
    migration does not go through.
    """
    with prod.migrations.alone() as run:
        run.upgrade(allow_destructive=True)  # 0002 drops what its predecessor kept for nobody
        with Session(run.connection) as session:
            added = seed(session)
            if shop_settings().environment == "development":
                seed_demo_admin(session, hash_password)
            session.commit()
    return added


def require_database() -> None:
    """Answer 503 until `flask prepare` has made the tables; asks the database until it has them, then never."""
    if current_app.extensions.get("shop_is_prepared"):
        return
    if not inspect(prod.db.engine).has_table("alembic_version"):
        abort(503, "The shop's database is not prepared yet: run `flask --app sample_app prepare`.")
    current_app.extensions["shop_is_prepared"] = True


@click.command("prepare")
@with_appcontext
def prepare_command() -> None:
    """Upgrade the database, and fill it when it is new.

    Safe to run before every start, and by several machines at once.

    \b
    Example:
      flask --app sample_app prepare
    """
    try:
        added = prepare_database()
    except MigrationError as error:
        raise click.ClickException(
            f"The database could not be upgraded: {error}\nCorrect the migration, or restore the version of the "
            "shop that this database belongs to, and run `flask prepare` again."
        ) from error
    except ProdKitError as error:
        raise click.ClickException(f"The database cannot be used: {error}") from error
    except DBAPIError as error:
        reason = str(error.orig).partition("\n")[0]
        raise click.ClickException(
            f"The database cannot be used: {reason}. Is it running, and is DATABASE_URL right?"
        ) from error
    click.echo(f"The database is ready{f', with {added} products' if added else ''}.")


@click.command("create-admin")
@click.argument("email")
@click.option("--name", default="Administrator", show_default=True)
@click.password_option(help="Asked for when it is not given.")
@with_appcontext
def create_admin_command(email: str, name: str, password: str) -> None:
    """Make an account that may see the admin page and change the inventory.

    \b
    Example:
      flask --app sample_app create-admin me@example.com
    """
    fields = Fields({"email": email, "name": name, "password": password})
    email, name = fields.email("email"), fields.text("name", least=1, most=80)
    password = fields.password("password", least=SHORTEST_PASSWORD)
    try:
        fields.check()
        create_user(email, name, password, is_admin=True)
    except Invalid as error:
        raise click.ClickException("\n".join(f"{key}: {value}" for key, value in error.errors.items())) from error
    click.echo(f"{email} is an administrator now.")


@click.command("send-pending-mails")
@with_appcontext
def send_pending_command() -> None:
    """Send every confirmation that has not gone out, without the queue.

    For the day on which Redis was down or lost its data; a mail that is out already is not sent again.

    \b
    Example:
      flask --app sample_app send-pending-mails
    """
    click.echo(f"{send_pending()} mails sent.")


def register_commands(app: Flask) -> None:
    """Put the commands beside `flask run`."""
    for command in (prepare_command, create_admin_command, send_pending_command):
        app.cli.add_command(command)
