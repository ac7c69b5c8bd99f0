"""`flask prod audit`: requests every route as a stranger, and fails on what no stranger should get."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import click
from flask import Flask

from flask_prod.core.kit import KitState
from flask_prod.core.secrets import secrets_of
from flask_prod.review import Report, Subject
from flask_prod.review.audit import Audit, audit
from flask_prod.review.engine import sorted_out
from flask_prod.review.stranger import AtHand, FarAway, Stranger, routes

from .check import CLEAN, FOUND, UNKNOWN, environment_of, is_audits, read_silences
from .group import load_state, message_of
from .told import as_object, lines

_STREAMS = (1, 2)
_TELLS_NOBODY = {"SENTRY_DSN": "", "ALERTS_CHANNELS": "", "TRACING_ENABLED": "false"}
"""Nobody is to be woken by the errors that an audit provokes."""


@click.command("audit")
@click.option("--url", help="Ask a running service instead of the application in this process.")
@click.option("--environment", metavar="NAME", help="Ask this profile instead of that of ENVIRONMENT.")
@click.option("--unsafe", is_flag=True, help="Also POST, PUT, PATCH and DELETE: it may change data.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
@click.option("--silence", "silences", multiple=True, metavar="ID=REASON", callback=read_silences,
              help="Set a finding aside, and say why; repeatable.")  # fmt: skip
@click.option("--fail-on", type=click.Choice(["error", "warning"]), default="warning", show_default=True,
              help="Exit with 1 for findings as bad as this, or worse.")  # fmt: skip
@click.pass_context
def audit_command(ctx: click.Context, /, environment: str | None, **options: object) -> None:
    """Request every route as a stranger, and fail on what no stranger should get.

    Operations endpoints that answer, stacks, secrets and versions in answers, missing security headers. GET, HEAD
    and OPTIONS are sent without a token or a cookie, from another public address each time, in this process: views
    run, and use the database and the Redis of the settings. Exits with 0, 1 for findings, 2 without an
    application.

    \b
    Examples:
      flask prod audit
      flask prod audit --environment production
      flask prod audit --url https://shop.example.com
    """
    with environment_of(environment, **_TELLS_NOBODY), _quiet():
        state = _state(ctx)
        found = _audited(ctx, state, str(options["url"] or ""), unsafe=bool(options["unsafe"]))
        written = {id: why for id, why in (Subject(state).get("CHECK_SILENCE") or {}).items() if is_audits(id)}
    typed: Any = options["silences"]
    report = sorted_out(found.findings, {**written, **typed}, found.requests)
    if options["as_json"]:
        click.echo(json.dumps(_as_object(report, found), indent=2))
    else:
        unjudged = f", {found.unjudged} refused by limits or unavailable" if found.unjudged else ""
        click.echo("\n".join(lines(report, f"{found.requests} requests{unjudged}")))
    if found.unjudged == found.requests:
        ctx.exit(UNKNOWN)
    ctx.exit(FOUND if report.fails(str(options["fail_on"])) else CLEAN)


@contextmanager
def _quiet() -> Iterator[None]:
    """Send to nowhere what the application logs and prints meanwhile: the audit's own words come afterwards."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    kept = [os.dup(stream) for stream in _STREAMS]
    try:
        for stream in _STREAMS:
            os.dup2(nowhere, stream)
        yield
    finally:
        for stream, before in zip(_STREAMS, kept, strict=True):
            os.dup2(before, stream)
            os.close(before)
        os.close(nowhere)


def _state(ctx: click.Context) -> KitState:
    try:
        return load_state(ctx)
    except Exception as error:
        raise _Unknown(f"Nothing could be audited: {message_of(error)}") from error


class _Unknown(click.ClickException):
    """Nothing can be said of an application that cannot be loaded."""

    exit_code = UNKNOWN


def _audited(ctx: click.Context, state: KitState, url: str, *, unsafe: bool) -> Audit:
    app: Flask = state.app
    try:
        stranger: Stranger = FarAway(url) if url else AtHand(app)
    except ValueError as error:
        raise click.UsageError(str(error), ctx) from error
    hidden = Subject(state).hidden
    return audit(
        stranger, routes(app, unsafe=unsafe), operational=tuple(_operational(state)),
        secret_texts=_secrets(app), told=hidden,
    )  # fmt: skip


def _operational(state: KitState) -> Iterator[str]:
    for contribution in state.contributions.values():
        yield from contribution.operational


def _secrets(app: Flask) -> Collection[str]:
    return frozenset(secrets_of(app))


def _as_object(report: Report, found: Audit) -> dict[str, object]:
    return {
        "requests": found.requests,
        "unjudged": found.unjudged,
        "findings": [as_object(one) for one in report.findings],
        "silenced": [as_object(one) for one in report.silenced],
    }
