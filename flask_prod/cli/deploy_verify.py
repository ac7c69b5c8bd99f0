"""`flask prod deploy verify`: whether what was deployed is what was meant, and does what it should."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import click
from flask import Flask
from werkzeug.routing import Rule

from flask_prod.core.gate import tokens_of
from flask_prod.core.kit import KitState
from flask_prod.core.values import Secret, parse_duration
from flask_prod.deploy.burst import Limits
from flask_prod.deploy.caller import Caller
from flask_prod.deploy.checked import Result, good
from flask_prod.deploy.verify import Expected, Verification
from flask_prod.server.budget import values_of

from .group import load_state
from .table import printable

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "skip": None}
_MOST_ROUTES = 100


class Span(click.ParamType[float]):
    """A duration as settings write it."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds."""
        try:
            return parse_duration(value)
        except ValueError:
            self.fail(f"{value!r} is no duration; write 500ms, 1s or 2m", param, ctx)


@click.command("verify")
@click.argument("url")
@click.option("--version", metavar="VERSION", help="What was deployed; SERVICE_VERSION if not given.")
@click.option(
    "--host", default="", metavar="NAME", help="The Host header, where URL is an address behind the proxy."
)
@click.option(
    "--http", "plain", default="", metavar="URL", help="The address by plain http; port 80 if not given."
)
@click.option("--ca", type=click.Path(exists=True, dir_okay=False), help="Trust these certificates.")
@click.option("--cert-days", default=14.0, show_default=True, help="Fail when the certificate expires sooner.")
@click.option("--exclude", multiple=True, metavar="PATH", help="Leave out routes that begin so; repeatable.")
@click.option("--requests", type=click.IntRange(1, 10000), default=40, show_default=True, help="Load: requests.")
@click.option("--clients", type=click.IntRange(1, 64), default=4, show_default=True, help="Load: at a time.")
@click.option("--p95", type=Span(), default="1s", show_default=True, help="Load: 95 of 100 are answered within.")
@click.option("--errors", type=click.FloatRange(0, 100), default=0.0, show_default=True, help="Load: percent.")
@click.option("--jobs-timeout", type=Span(), default="15s", show_default=True, help="A job comes back within.")
@click.option("--wait", type=Span(), default="0s", show_default=True, help="For a service that is just starting.")
@click.option("--no-jobs", is_flag=True, help="Send no job: this place has no way to the queues.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
@click.pass_context
def verify(ctx: click.Context, /, url: str, as_json: bool, **options: Any) -> None:
    """Ask a deployed service whether it is the one that was meant, and does what it should.

    Probes, version, metrics, security headers, CORS, the redirect to https, certificate, every route without
    parameters, cookies, a job to each queue and back, and a little load: a line each. Exits with 1 when one fails.
    Tokens, and the way to the queues, are those of the settings here. With TRUSTED_PROXIES set, a plain http
    address is asked in the place of the proxy.

    \b
    Examples:
      flask prod deploy verify https://shop.example.com --version 1.4.2
      flask prod deploy verify http://127.0.0.1:8000 --host shop.example.com
      flask prod deploy verify https://shop.example.com --no-jobs --json
    """
    state = load_state(ctx)
    values = values_of(state)
    hops = 0 if url.startswith("https:") else int(values["TRUSTED_PROXIES"])
    caller = Caller(url, hops, options["host"], options["ca"] or "")
    limits = Limits(options["requests"], options["clients"], options["p95"], options["errors"] / 100)
    wanted = expected(state, values, caller, options)
    results = list(
        shown(
            Verification(
                caller, wanted, limits, options["plain"], options["cert_days"], options["wait"]
            ).results(),
            as_json,
        )
    )
    if as_json:
        click.echo(as_text({"url": url}, results))
    ctx.exit(0 if good(results) else 1)


def expected(state: KitState, values: Mapping[str, Any], caller: Caller, options: Mapping[str, Any]) -> Expected:
    """Return what the service that serves this application must show."""
    rooms = state.contributions
    metrics = "metrics" in rooms and values["METRICS_ENABLED"]
    plan = rooms["headers"].handle.plan(None) if "headers" in rooms else None
    version = options["version"] or str(values["SERVICE_VERSION"])
    routes = tuple(_routes(state.app, values, options["exclude"]))[:_MOST_ROUTES]
    return Expected(
        version=version,
        health=str(values.get("HEALTH_PATH", "")),
        metrics=str(values["METRICS_PATH"]) if metrics else "",
        metrics_port=int(values["METRICS_PORT"] or 0) if metrics else 0,
        health_token=_token(values.get("HEALTH_TOKEN")),
        metrics_token=_token(values.get("METRICS_TOKEN")),
        headers=() if plan is None else plan.secure_api if caller.as_https else plan.plain_api,
        forces_https=bool(plan and plan.force_https),
        origins=tuple(values.get("ALLOWED_ORIGINS") or ()),
        routes=routes,
        session_cookie=str(state.app.config["SESSION_COOKIE_NAME"]),
        ping=None if options["no_jobs"] else _ping(state, options["jobs_timeout"]),
    )


def shown(results: Iterable[Result], as_json: bool) -> Iterator[Result]:
    """Print each result as it comes, unless JSON is wanted."""
    for one in results:
        if not as_json:
            state = click.style(f"{one.status:<5}", fg=COLOURS[one.status], bold=one.status == "fail")
            click.echo(f"{state} {one.name:<12} {printable(one.detail)}")
        yield one


def as_text(head: Mapping[str, Any], results: Iterable[Result]) -> str:
    """Return results as JSON."""
    results = list(results)
    checks = [{"name": r.name, "status": r.status, "detail": r.detail, "seconds": r.seconds} for r in results]
    return json.dumps({**head, "ok": good(results), "checks": checks}, indent=2)


def _token(value: object) -> str:
    return next(iter(tokens_of(value)), "") if isinstance(value, Secret) else ""


def _routes(app: Flask, values: Mapping[str, Any], exclude: tuple[str, ...]) -> Iterator[str]:
    """Yield the paths that anybody may ask for by GET, those of the kit left out."""
    own = (str(values.get("HEALTH_PATH", "/health")), str(values.get("METRICS_PATH", "/metrics")))
    for rule in app.url_map.iter_rules():
        ours = any(rule.rule == path or rule.rule.startswith(f"{path}/") for path in own)
        if _is_plain(rule) and not ours and not rule.rule.startswith(exclude):
            yield rule.rule


def _is_plain(rule: Rule) -> bool:
    return "GET" in (rule.methods or ()) and not (rule.arguments or rule.websocket or rule.subdomain or rule.host)


def _ping(state: KitState, seconds: float) -> Callable[[], str] | None:
    """Return what sends a job to each queue; None where the application has no jobs that workers run."""
    room = state.contributions.get("jobs")
    if room is None:
        return None
    from flask_prod.components.jobs.operations.ping import ping_queues

    engine = room.handle
    if not engine.tasks.by_name or engine.backend.kind not in ("redis", "database"):
        return None

    def ping() -> str:
        found = ping_queues(engine, seconds)
        return ", ".join(f"{queue} in {took:.2f} s" for queue, took in found.items())

    return ping
