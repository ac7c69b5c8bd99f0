"""`flask prod check`: says whether this deployment is ready for production, and why not."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import click

from flask_prod.core.errors import ConfigError
from flask_prod.review import Report, Subject, review
from flask_prod.review.rules import rules_for, sums
from flask_prod.review.sarif import to_sarif

from .group import load_state, message_of
from .mend import mend
from .told import as_object, lines

CLEAN, FOUND, UNKNOWN = 0, 1, 2
"""Exit codes: nothing to say, findings as bad as --fail-on, or nothing could be checked."""


@dataclass(frozen=True)
class Options:
    """What was asked on the command line."""

    form: str
    online: bool
    only: tuple[str, ...]
    silences: dict[str, str]
    fail_on: str
    fix: bool
    yes: bool


def read_silences(_ctx: click.Context, _param: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    """Return the reasons of `--silence ID=REASON` by id."""
    found = {}
    for value in values:
        id, equals, reason = value.partition("=")
        if not equals or not reason.strip():
            raise click.BadParameter(f'say why: --silence {id}="the reason"')
        found[id.strip()] = reason.strip()
    return found


@click.command()
@click.option("--environment", metavar="NAME", help="Check this profile instead of that of ENVIRONMENT.")
@click.option("--json", "form", flag_value="json", help="Print JSON.")
@click.option("--sarif", "form", flag_value="sarif", help="Print SARIF 2.1.0, as code hosts show it.")
@click.option("--table", "form", flag_value="table", default="table", help="Print lines.  [default]")
@click.option("--online", is_flag=True, help="Also ask the service's own Redis and database, and this machine.")
@click.option("--only", multiple=True, metavar="ID", help="Only findings whose ids begin so; repeatable.")
@click.option("--silence", "silences", multiple=True, metavar="ID=REASON", callback=read_silences,
              help="Set a finding aside, and say why; repeatable.")  # fmt: skip
@click.option("--fail-on", type=click.Choice(["error", "warning", "info"]), default="warning", show_default=True,
              help="Exit with 1 for findings as bad as this, or worse.")  # fmt: skip
@click.option("--fix", is_flag=True, help="Offer to mend what can be mended safely: shows the change, asks.")
@click.option("--yes", is_flag=True, help="Do not ask, with --fix.")
@click.pass_context
def check(ctx: click.Context, /, environment: str | None, **options: object) -> None:
    """Say whether this deployment is ready for production, and why not.

    Nothing is asked over the network without --online. Exits with 0 when there is nothing to mend, with 1 for
    findings, with 2 when the application cannot be loaded. docs/check.md explains each finding.

    \b
    Examples:
      flask prod check
      flask prod check --environment production      (from a developer's machine)
      flask prod check --only P1 --fix               (secrets: make those that are missing)
      flask prod check --silence P801="the provider makes backups, runbook 7"
      flask prod check --sarif > check.sarif
    """
    wanted = Options(**options)  # type: ignore[arg-type]  # click gives exactly these
    with environment_of(environment):
        subject = _subject(ctx)
        report = _report(subject, wanted)
        if wanted.fix and mend(report.findings, subject, ask=not wanted.yes):
            click.echo("Mended; start again what runs, and check again.", err=True)
            # What could not start has more to say once it does.
            ready = subject.state is not None and not _rest(report).fails(wanted.fail_on)
            ctx.exit(CLEAN if ready else FOUND)
    _show(report, subject, wanted.form)
    ctx.exit(FOUND if report.fails(wanted.fail_on) else CLEAN)


def _subject(ctx: click.Context) -> Subject:
    try:
        return Subject(load_state(ctx))
    except ConfigError as error:
        return Subject(None, problems=error.problems)
    except (click.ClickException, RuntimeError) as error:
        text = message_of(error)
    except Exception as error:  # NotInstalled: an application without a kit
        text = str(error)
    click.secho(f"Nothing could be checked: {text}", err=True, fg="red")
    sys.exit(UNKNOWN)


def _report(subject: Subject, wanted: Options) -> Report:
    written = {id: why for id, why in (subject.get("CHECK_SILENCE") or {}).items() if not is_audits(id)}
    silences = {**written, **wanted.silences}
    rules = rules_for(subject)
    return review(
        subject,
        rules,
        more=partial(sums, online=wanted.online),
        online=wanted.online,
        only=wanted.only,
        silences=silences,
    )


def is_audits(id: str) -> bool:
    """Tell whether a finding is one of `flask prod audit`."""
    return id[:1] == "A" and id[1:].isdigit()


@contextmanager
def environment_of(name: str | None, **others: str) -> Iterator[None]:
    """Run as if ENVIRONMENT said *name*, and other variables what *others* say."""
    wanted = {**others, **({"ENVIRONMENT": name} if name else {})}
    before = {key: os.environ.get(key) for key in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for key, value in before.items():
            os.environ.pop(key)
            if value is not None:
                os.environ[key] = value


def _rest(report: Report) -> Report:
    return Report(tuple(one for one in report.findings if one.fix is None))


def _show(report: Report, subject: Subject, form: str) -> None:
    if form == "sarif":
        click.echo(json.dumps(to_sarif(report, rules_for(subject), subject.folder), indent=2))
    elif form == "json":
        click.echo(json.dumps(_as_object(report, subject), indent=2))
    else:
        what = f"{report.asked} rules asked of the profile {subject.environment}"
        if subject.state is None:
            what = f"the profile {subject.environment} does not start: most cannot be judged yet"
        click.echo("\n".join(lines(report, what)))


def _as_object(report: Report, subject: Subject) -> dict[str, object]:
    return {
        "environment": subject.environment,
        "asked": report.asked,
        "findings": [as_object(one) for one in report.findings],
        "silenced": [as_object(one) for one in report.silenced],
        "unneeded_silences": list(report.unneeded),
    }
