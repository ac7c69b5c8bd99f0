"""`flask prod check --fix`: what can be mended without a doubt; shown first, and asked."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path

import click

from flask_prod.core.sources import parse_dotenv
from flask_prod.review import Finding, Subject
from flask_prod.review.rule import Chmod, NewSecret

_SECRET_BYTES = 32
_PRIVATE = 0o600


def mend(findings: Iterable[Finding], subject: Subject, *, ask: bool) -> bool:
    """Mend what has a remedy of its own, each once; tell whether anything was changed."""
    fixes = list(dict.fromkeys(one.fix for one in findings if one.fix is not None))
    if not fixes:
        click.echo("Nothing here can be mended without a decision of yours.", err=True)
        return False
    env = subject.folder / (subject.environ.get("ENV_FILE") or ".env")
    keys = [fix.key for fix in fixes if isinstance(fix, NewSecret) and not _has(env, fix.key)]
    modes = [fix for fix in fixes if isinstance(fix, Chmod)]
    for line in _diff(env, keys, modes):
        click.echo(line, err=True)
    if not keys and not modes:
        return False
    if ask and not click.confirm("Do this?", err=True):
        return False
    if keys and env.exists() and not env.is_file():
        raise click.ClickException(f"{env} is no file that can be written: unset ENV_FILE, or name another.")
    for fix in modes:
        fix.path.chmod(fix.mode)
    if keys:
        _append(env, [f"{key}={secrets.token_urlsafe(_SECRET_BYTES)}" for key in keys])
    return True


def _diff(env: Path, keys: Iterable[str], modes: Iterable[Chmod]) -> Iterable[str]:
    for fix in modes:
        yield f"  chmod {fix.mode:o} {fix.path}"
    keys = list(keys)
    if keys:
        yield f"  {env} (mode 600)"
        yield from (f"  + {key}=<{_SECRET_BYTES} random bytes>" for key in keys)


def _has(env: Path, key: str) -> bool:
    return env.is_file() and bool(parse_dotenv(env.read_text(encoding="utf-8")).get(key))


def _append(env: Path, lines: list[str]) -> None:
    """Add lines to a file that only its owner may read, from its first byte on."""
    handle = os.open(env, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, _PRIVATE)
    with os.fdopen(handle, "r+", encoding="utf-8") as file:
        os.fchmod(file.fileno(), _PRIVATE)
        before = file.read()
        file.write(("\n" if before and not before.endswith("\n") else "") + "\n".join(lines) + "\n")
