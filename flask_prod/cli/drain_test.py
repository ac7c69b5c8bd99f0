"""`flask prod drain-test`: tells whether anybody would notice a deploy of this application."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from flask.cli import ScriptInfo

from flask_prod.core.errors import ConfigError
from flask_prod.server.budget import findings, planned, values_of
from flask_prod.server.load import Tally
from flask_prod.server.rehearsal import Scene, Script, rehearse
from flask_prod.server.sums import CLOSING, Excess
from flask_prod.server.web_settings import ServerSettings

from .group import load_state
from .up import DEFAULT_CONFIG, OWN_CONFIG
from .wsgi import TARGET

CLASSES = ("sync", "gthread", "gevent")
_ALONE = {"METRICS_PORT": "0", "TLS_ENABLED": "false"}
"""Two servers on one machine cannot share a port, and the clients of the test speak plain HTTP."""

_SHOWN = 5


@click.command("drain-test")
@click.option("--rounds", type=click.IntRange(1, 100), default=2, show_default=True, help="How often.")
@click.option(
    "--seconds", type=click.FloatRange(0.5, 60), default=2.0, show_default=True,
    help="Load before and after each signal.",
)  # fmt: skip
@click.option("--clients", type=click.IntRange(1, 64), default=8, show_default=True, help="Clients at once.")
@click.option("--path", "paths", multiple=True, help="What they ask for, repeatable.  [default: live probe, /]")
@click.option("--lag", type=click.FloatRange(0, 60), default=1.0, show_default=True,
              help="Seconds after which the balancer acts on readiness.")  # fmt: skip
@click.option("--worker-class", type=click.Choice(CLASSES), help="Another kind of worker than configured.")
@click.option(
    "--workers", type=click.IntRange(1, 16), default=2, show_default=True, help="Workers of each server."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
@click.pass_context
def drain_test(ctx: click.Context, /, as_json: bool, **options: Any) -> None:
    """Rehearse deploys of this application, and count lost requests.

    Two servers (gunicorn, with your gunicorn.conf.py if there is one) run the application on loopback ports, and
    clients ask them without a pause through a balancer that follows readiness late, as real ones do. In each round
    one server gets SIGTERM and is started anew, the other reloads on SIGHUP. It uses the database and the Redis of
    the settings, with the paths that you name; rate limits are off. Exits with 0 when no request was lost.

    \b
    Examples:
      flask prod drain-test
      flask prod drain-test --rounds 5 --path /api/products --path /
      flask prod drain-test --worker-class gevent --json
      DRAIN_SECONDS=0 flask prod drain-test      (see what happens without)
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything ends with this command
    values = values_of(load_state(ctx), ServerSettings)
    script = _script(ctx, values, options)
    if not as_json:
        click.echo(_announcement(script, values, options["rounds"]))
    scenes = rehearse(script, options["rounds"], _nothing if as_json else _show)
    excesses = findings(
        values, planned(values, options["workers"], options["worker_class"] or str(values["WEB_WORKER_CLASS"]))
    )
    _conclude(scenes, tuple(_advice(scenes, script, values)), excesses, as_json)
    ctx.exit(0 if all(scene.good for scene in scenes) else 1)


def _script(ctx: click.Context, values: Mapping[str, Any], options: Mapping[str, Any]) -> Script:
    info = ctx.ensure_object(ScriptInfo)
    if info.create_app is not None and not info.app_import_path:
        raise ConfigError(
            ["`prod drain-test` starts other processes: name the application by FLASK_APP or --app."]
        )
    config = OWN_CONFIG if Path(OWN_CONFIG).is_file() else DEFAULT_CONFIG
    command = [sys.executable, "-m", "gunicorn", "-c", config, "--workers", str(options["workers"])]
    if options["worker_class"]:
        command += ["--worker-class", options["worker_class"]]
    health = values.get("HEALTH_PATH")
    return Script(
        tuple(command),
        TARGET,
        _environment(info),
        f"{health}/ready" if health else None,
        options["paths"] or tuple(path for path in (health and f"{health}/live", "/") if path),
        options["clients"],
        options["seconds"],
        options["lag"],
        float(values["DRAIN_SECONDS"]) + float(values["SHUTDOWN_SECONDS"]) + CLOSING,
    )


def _environment(info: ScriptInfo) -> dict[str, str]:
    """Return the environment of both servers; all clients share one address, which rate limits would refuse."""
    env = {"RATE_LIMIT_ENABLED": "false", **os.environ, **_ALONE, "PYTHONUNBUFFERED": "1"}
    if info.app_import_path:
        env["FLASK_APP"] = info.app_import_path
    return env


def _announcement(script: Script, values: Mapping[str, Any], rounds: int) -> str:
    probe = f"follows {script.ready} after {script.lag:g} s" if script.ready else "knows of no readiness probe"
    return (
        f"{rounds} rounds, {script.clients} clients, {' '.join(script.paths)}; the balancer {probe}, "
        f"DRAIN_SECONDS is {values['DRAIN_SECONDS']:g} s."
    )


def _show(scene: Scene) -> None:
    tally = scene.tally
    what = f"ended after {scene.seconds:.1f} s" if scene.signal == "TERM" else f"reloaded in {scene.seconds:.1f} s"
    lost = click.style(f"{tally.lost} of {tally.requests:,} lost", fg="red" if tally.lost else "green")
    click.echo(
        f"round {scene.round}  {scene.signal:<4}  {lost}, slowest {tally.slowest:.2f} s; the server {what}"
        + (f" ({scene.ended})" if scene.ended else "")
        + (f", and left {', '.join(scene.left)}" if scene.left else "")
    )
    for line in tally.told[:_SHOWN]:
        click.echo(f"           {line}")


def _conclude(scenes: Sequence[Scene], advice: Sequence[str], excesses: Sequence[Excess], as_json: bool) -> None:
    requests, lost = sum(scene.tally.requests for scene in scenes), sum(scene.tally.lost for scene in scenes)
    if as_json:
        found: dict[str, Any] = {"requests": requests, "lost": lost, "advice": advice}
        found["scenes"] = [_plain(scene) for scene in scenes]
        found["findings"] = [asdict(excess) for excess in excesses]
        click.echo(json.dumps(found, indent=2))
        return
    for line in (*advice, *map(str, excesses)):
        click.echo(f"- {line}")
    click.secho(f"{lost} of {requests:,} requests lost.", fg="red" if lost else "green", bold=True)


def _plain(scene: Scene) -> dict[str, Any]:
    tally: Tally = scene.tally
    return {
        "round": scene.round, "signal": scene.signal, "requests": tally.requests, "lost": tally.lost,
        "slowest": round(tally.slowest, 3), "seconds": round(scene.seconds, 2), "ended": scene.ended or "well",
        "left": scene.left, "told": tally.told[:_SHOWN],
    }  # fmt: skip


def _advice(scenes: Sequence[Scene], script: Script, values: Mapping[str, Any]) -> Iterator[str]:
    """Yield what to change."""
    stops = [scene for scene in scenes if scene.signal == "TERM"]
    drain, needed = float(values["DRAIN_SECONDS"]), script.lag + 1
    if any(scene.tally.lost for scene in stops):
        if script.ready is None:
            yield "The application leaves the health room out: balancers cannot learn that an instance is ending."
        elif drain < needed:
            yield (
                f"DRAIN_SECONDS is {drain:g} s, but the balancer acts after {script.lag:g} s: set it to "
                f"{needed:g} s or more."
            )
        else:
            yield "Requests were lost at the stop although the drain was long enough: see the lines above."
    if any(scene.ended.startswith("killed") for scene in stops):
        yield (
            f"A server did not end within DRAIN_SECONDS + SHUTDOWN_SECONDS + {CLOSING:g} s: something holds it up "
            "that is no request."
        )
    if any(scene.tally.lost for scene in scenes if scene.signal == "HUP"):
        yield "Requests were lost at a reload: does the configuration use the kit's hooks (docs/server.md)?"
    if any(scene.left for scene in stops):
        yield "What was left behind is named above: close it in a hook of yours, or by `worker_exit`."


def _nothing(_scene: Scene) -> None:
    return
