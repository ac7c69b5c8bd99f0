"""`flask prod secret`: strong values for secrets; nothing is written anywhere."""

from __future__ import annotations

import base64
import re
import secrets
import string
from collections.abc import Callable, Iterator
from difflib import get_close_matches

import click
import msgspec

from flask_prod.core.convert import holds_secrets
from flask_prod.core.registry import BUILT_IN, load_component
from flask_prod.core.settings import Section, ServiceSettings, key_names
from flask_prod.core.values import SecretUrl

LEAST, MOST = 16, 1024
"""Bytes: 128 bits are the least that counts as strong (NIST SP 800-131A); more than 1 KB is a slip of the pen."""

_LETTERS = string.ascii_letters + string.digits


def _letters(size: int) -> str:
    # As many as hold the same number of bits: one of 62 has 5.95 of them.
    return "".join(secrets.choice(_LETTERS) for _ in range(-(-size * 800 // 595)))


FORMATS: dict[str, Callable[[int], str]] = {
    "urlsafe": secrets.token_urlsafe,
    "hex": secrets.token_hex,
    "base64": lambda size: base64.b64encode(secrets.token_bytes(size)).decode(),
    "letters": _letters,
}
"""How a value may be written; `letters` has no sign that an address or a shell would have to quote."""

_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)


@click.group()
def secret() -> None:
    """Make secrets."""


@secret.command()
@click.argument("name", required=False)
@click.option(
    "--bytes", "size", type=click.IntRange(LEAST, MOST), default=32, show_default=True, help="Random bytes."
)
@click.option("--format", "form", type=click.Choice(list(FORMATS)), help="How the value is written.")
@click.option("--env", is_flag=True, help="Print NAME=value, a line for a .env file.")
def generate(name: str | None, size: int, form: str | None, env: bool) -> None:
    """Print one strong value, of as many random bytes; nothing is written.

    With NAME it has the form that the setting takes: a password is made of letters and digits only, since it may
    stand in an address.

    \b
    Examples:
      flask prod secret generate
      flask prod secret generate SECRET_KEY --env >> .env
      flask prod secret generate --bytes 64 --format hex
      flask prod secret generate | docker secret create METRICS_TOKEN -
    """
    if name is None:
        if env:
            raise click.UsageError("--env needs a NAME: flask prod secret generate SECRET_KEY --env")
    else:
        name = name.upper()
        _check(name)
        form = form or form_of(name)
    value = FORMATS[form or "urlsafe"](size)
    click.echo(f"{name}={value}" if env else value)


def form_of(name: str) -> str:
    """Return how the value of this setting is best written."""
    return "letters" if "PASSW" in name else "urlsafe"


def _check(name: str) -> None:
    """Refuse a name that is no variable, and one of a setting that is no secret or that nobody can make up."""
    if not _NAME.fullmatch(name):
        raise click.UsageError(f"{name} cannot be the name of a variable.")
    settings = dict(_settings())
    kind = settings.get(name)
    if kind is None:
        near = get_close_matches(
            name, [key for key, kind in settings.items() if holds_secrets(kind)], 1, cutoff=0.88
        )
        if near:
            raise click.UsageError(f"{name} is not a setting; did you mean {near[0]}?")
        return  # one of the application's own
    if not holds_secrets(kind):
        raise click.UsageError(f"{name} is no secret.")
    if isinstance(kind, type) and issubclass(kind, SecretUrl):
        raise click.UsageError(
            f"{name} is an address; make its password with: flask prod secret generate --format letters"
        )


def _settings() -> Iterator[tuple[str, object]]:
    """Yield every setting's names with its kind; imports all rooms."""
    kinds: list[type[Section]] = [ServiceSettings, *(load_component(room).settings for room in BUILT_IN)]
    for kind in kinds:
        for field in msgspec.structs.fields(kind):
            for key in key_names(kind, field.name):
                yield key, field.type
