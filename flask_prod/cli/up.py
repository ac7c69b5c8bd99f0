"""`flask prod up`: web, worker and, where there is no REDIS_URL, a local Valkey under one supervisor."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import msgspec
from flask.cli import ScriptInfo

from flask_prod.core.errors import ConfigError
from flask_prod.core.settings import ServiceSettings, Source, peek
from flask_prod.core.sources import find_sources
from flask_prod.server import multiprocess
from flask_prod.server.child import Program
from flask_prod.server.embedded import EmbeddedValkey
from flask_prod.server.supervisor import OWN, Knock, Supervisor
from flask_prod.server.terminal import foreground

from .console import Console
from .first_start import Facts
from .wsgi import TARGET

OWN_CONFIG = "gunicorn.conf.py"
DEFAULT_CONFIG = "python:flask_prod.server.gunicorn_conf"
WORKERS = 2

_QUICK = {"DRAIN_SECONDS": "0", "SHUTDOWN_SECONDS": "3"}
"""Where the environment does not set it: Ctrl-C is not to wait."""


@dataclass(frozen=True)
class Plan:
    """What `up` was asked for, read before anything starts."""

    host: str
    port: int
    workers: int
    worker: bool
    redis: bool
    data: Path


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), help="The port to listen on.  [default: PORT, else 8000]")
@click.option(
    "--workers", type=click.IntRange(1), help="Web worker processes.  [default: WEB_CONCURRENCY, else 2]"
)
@click.option("--no-worker", is_flag=True, help="Start no job worker.")
@click.option("--no-redis", is_flag=True, help="Start no local Valkey although there is no REDIS_URL.")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".flask-prod"),
    show_default=True,
    help="Where the local Valkey keeps its data.",
)
@click.pass_context
def up(ctx: click.Context, /, **options: Any) -> None:
    """Run web, worker and a local Valkey until Ctrl-C.

    The application is found as for every Flask command (FLASK_APP or --app). Its own command `flask prepare`, if
    it has one, is run first: the place for migrations. What ends by itself is started again, with growing pauses.
    The first Ctrl-C or SIGTERM ends all cleanly within five seconds, the second one at once.

    \b
    Examples:
      flask --app shop prod up
      ENVIRONMENT=development flask prod up --port 5000 --workers 1
      REDIS_URL=redis://cache:6379/0 flask prod up
      flask prod up --no-worker --no-redis
    """
    sources = find_sources({}, Path.cwd(), remote=None)
    plan = _plan(options, sources)
    env = _environment(ctx.ensure_object(ScriptInfo), plan)
    check_port(plan.host, plan.port)
    env |= _shared_metrics()
    with foreground():
        code = _run(plan, env)
    ctx.exit(code)


def _shared_metrics() -> dict[str, str]:
    """Return where web and worker count together: what a job counts is seen by whoever scrapes the web."""
    folder = multiprocess.prepare()
    return {multiprocess.VARIABLE: str(folder)} if folder else {}


def check_port(host: str, port: int) -> None:
    """Refuse a port that somebody listens on, or that this user may not take, before anything is started."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError([_port_problem(host, port, error)]) from error


def _port_problem(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"PORT {port} is in use on {host}: another process listens there. Stop it, or choose another port: "
            f"flask prod up --port {port % 65535 + 1}, or PORT={port % 65535 + 1}."
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"PORT {port} needs rights that this user does not have; choose one above 1023, as in --port 8000."
    return f"PORT {port} cannot be taken on {host}: {error.strerror or error}. Choose another --host or --port."


def _plan(options: dict[str, Any], sources: list[Source]) -> Plan:
    has_redis = any(source.values.get("REDIS_URL") for source in sources)
    return Plan(
        host=options["host"],
        port=options["port"] or peek(sources, ServiceSettings, "port"),
        workers=options["workers"] or _concurrency(sources),
        worker=not options["no_worker"],
        redis=not options["no_redis"] and not has_redis,
        data=options["data"],
    )


def _concurrency(sources: list[Source]) -> int:
    raw = next(
        (str(s.values["WEB_CONCURRENCY"]) for s in sources if s.values.get("WEB_CONCURRENCY")), str(WORKERS)
    )
    if not raw.isdigit() or int(raw) < 1:
        raise ConfigError([f"WEB_CONCURRENCY must be a whole number of at least 1, not {raw!r}."])
    return int(raw)


def _environment(info: ScriptInfo, plan: Plan) -> dict[str, str]:
    """Return the environment of every child."""
    if info.create_app is not None and not info.app_import_path:
        raise ConfigError(
            ["`prod up` starts other processes, which need the application's name: set FLASK_APP or --app."]
        )
    env = {**_QUICK, **os.environ, "PORT": str(plan.port), "PYTHONUNBUFFERED": "1"}
    if info.app_import_path:
        env["FLASK_APP"] = info.app_import_path
    return env


def _run(plan: Plan, env: dict[str, str]) -> int:
    console = Console((OWN, "prepare", "valkey", "web", "worker"))
    with Supervisor(console.say) as supervisor:
        parts = [f"web {plan.workers} " + ("worker" if plan.workers == 1 else "workers")]
        if plan.redis:
            _make_data(plan.data)
            env["REDIS_URL"] = supervisor.serve("valkey", EmbeddedValkey(plan.data / "valkey"))
            parts.append(f"valkey {env['REDIS_URL'].removeprefix('redis://').partition('/')[0]}")
        facts = _first_start(supervisor, env)
        if isinstance(facts, int):
            return facts
        env["SERVICE_NAME"] = facts.service
        plan = replace(plan, worker=plan.worker and facts.worker)
        if plan.worker:
            parts.insert(1, f"worker {facts.workers}")
        ready = f"Ready at http://{_shown(plan.host)}:{plan.port} ({', '.join(parts)})"
        knock = Knock(_near(plan.host), plan.port, facts.probe)
        return supervisor.run(_programs(plan, env), knock, _announcer(console, ready))


def _announcer(console: Console, ready: str) -> Callable[[], None]:
    def announce() -> None:
        console.say(OWN, ready)

    return announce


def _first_start(supervisor: Supervisor, env: dict[str, str]) -> Facts | int:
    """Return what the application has; an exit code where it cannot start, which its own lines explain."""
    read, write = os.pipe()
    command = (sys.executable, "-m", "flask", "prod", "first-start", "--facts", str(write))
    try:
        code = supervisor.run_once(Program("prepare", command, env, (write,)))
    finally:
        os.close(write)
        with open(read, "rb") as file:
            told = file.read()
    if supervisor.stopping:
        return 0
    return msgspec.json.decode(told, type=Facts) if code == 0 and told else code or 1


def _programs(plan: Plan, env: dict[str, str]) -> list[Program]:
    config = OWN_CONFIG if Path(OWN_CONFIG).is_file() else DEFAULT_CONFIG
    bind, workers = f"{_shown(plan.host)}:{plan.port}", str(plan.workers)
    gunicorn = (sys.executable, "-m", "gunicorn", "-c", config, "--bind", bind, "--workers", workers, TARGET)
    programs = [Program("web", gunicorn, env)]
    if plan.worker:
        programs.append(Program("worker", (sys.executable, "-m", "flask", "prod", "worker"), env))
    return programs


def _make_data(folder: Path) -> None:
    """Make the folder, which no repository should hold; EmbeddedValkey says what stands in the way."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        ignore = folder / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
    except OSError as error:
        raise ConfigError(
            [f"{folder} cannot be written: {error.strerror}. Choose another folder with --data, or set REDIS_URL."]
        ) from error


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _near(host: str) -> str:
    """Return the address to knock at: a server on all addresses is on loopback too."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared, not listened on
