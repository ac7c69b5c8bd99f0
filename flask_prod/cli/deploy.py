"""`flask prod deploy`: deployment files for this application, shown before they are written."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
from flask import Flask
from flask.cli import ScriptInfo

from flask_prod.deploy import TARGETS, Plan, Target, render
from flask_prod.deploy.reading import read_plan

from .deploy_ready import ready
from .deploy_recover import drill, recover
from .deploy_verify import verify
from .group import load_state
from .initial.change import Change, diff, write
from .initial.text import ByHand

_USUAL_FACTORIES = ("create_app", "make_app")
_USUAL_APPS = ("app", "application")


@click.group()
def deploy() -> None:
    """Make the files with which this application is deployed.

    \b
    Examples:
      flask prod deploy init docker compose      an image, and a stack to try it in
      flask prod deploy init kubernetes --diff   what would be written
      flask prod deploy init all --check         fail where files are not current, for CI
      flask prod deploy ready                    may this release be deployed here?
      flask prod deploy verify https://...       is what was deployed what was meant?
      flask prod deploy drill                    how fast would the last backup be back?
    """


@deploy.command()
@click.argument("targets", nargs=-1, required=True, type=click.Choice([*TARGETS, "all"]), metavar="TARGET...")
@click.option("--to", "folder", type=click.Path(file_okay=False, path_type=Path), help="Default: deploy.")
@click.option("--environment", default="production", show_default=True, help="Whose settings count.")
@click.option("--diff", "how", flag_value="diff", help="Show what would change and write nothing.")
@click.option(
    "--check", "how", flag_value="check", help="Write nothing; exit with 1 where a file is missing or not current."
)
@click.option("--yes", "-y", "how", flag_value="yes", help="Overwrite without asking.")
@click.pass_context
def init(
    ctx: click.Context, targets: tuple[str, ...], folder: Path | None, environment: str, how: str | None
) -> None:
    """Write deployment files for this application, made of its settings in production.

    New files are written; one that is there and differs is shown and asked about. Names, hosts and sizes come
    from the settings DEPLOY_*, best kept in config/production.toml: `flask prod settings DEPLOY`.

    \b
    TARGET is one of:
      {targets}
      all

    \b
    Examples:
      flask prod deploy init docker
      flask prod deploy init kubernetes helm --diff
      flask prod deploy init all --yes
    """
    plan = plan_of(ctx, environment, folder or Path("deploy"))
    for problem in plan.problems:
        click.secho(f"Made with defaults instead: {problem}", fg="yellow", err=True)
    root = Path.cwd()
    chosen = list(TARGETS) if "all" in targets else list(dict.fromkeys(targets))
    changes = [change for name in chosen for change in changes_of(TARGETS[name], plan, root, folder)]
    stale = [change for change in changes if change.before != change.after]
    if how == "check":
        _check(ctx, stale, root)
    elif how == "diff":
        click.echo("\n".join(line for change in stale for line in diff(change, root)))
        click.echo(f"{_files(len(stale))} would change; nothing was written.")
    else:
        _write(stale, root, yes=how == "yes")


for command in (ready, verify, drill, recover):
    deploy.add_command(command)

init.help = inspect.cleandoc(init.help or "").replace(
    "  {targets}", "\n".join(f"  {target.name:<12}{target.sentence}" for target in TARGETS.values())
)


def plan_of(ctx: click.Context, environment: str = "production", folder: Path = Path("deploy")) -> Plan:
    """Return the plan of the application that the command line names."""
    state = load_state(ctx)
    flask_app, entry = _named(ctx.ensure_object(ScriptInfo), state.app)
    return read_plan(state, entry, flask_app, environment, _below(folder))


def _below(folder: Path) -> str:
    """Return *folder* as the files name it: below the project's root where it lies there."""
    path = folder.absolute()
    return path.relative_to(Path.cwd()).as_posix() if path.is_relative_to(Path.cwd()) else str(folder)


def changes_of(target: Target, plan: Plan, root: Path, folder: Path | None) -> Iterator[Change]:
    """Yield each file of *target* as it is and as it is to be."""
    home = folder / target.name if folder else Path(target.home or f"deploy/{target.name}")
    for file in render(target, plan):
        place = target.places.get(str(file.path))
        path = root / (place if place else home / file.path)
        yield Change(path, path.read_bytes() if path.is_file() else None, file.text.encode(), file.mode)


def _check(ctx: click.Context, stale: list[Change], root: Path) -> None:
    for change in stale:
        what = "is missing" if change.before is None else "is not current"
        click.echo(f"{_shown(change.path, root)} {what}")
    if stale:
        click.echo("Run the same command without --check to write them.")
        ctx.exit(1)
    click.echo("All files are current.")


def _write(stale: list[Change], root: Path, *, yes: bool) -> None:
    agreed = [change for change in stale if change.before is None or yes or _ask(change, root)]
    try:
        write(agreed)
    except ByHand as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"This cannot be written, and nothing was: {error}") from error
    for change in agreed:
        click.echo(f"{'new    ' if change.before is None else 'changed'}  {_shown(change.path, root)}")
    kept = len(stale) - len(agreed)
    click.echo(f"{_files(len(agreed))} written" + (f", {kept} kept as they were." if kept else "."))


def _ask(change: Change, root: Path) -> bool:
    """Show what would change in a file that is there, and ask; nobody to ask means no."""
    click.echo("\n".join(diff(change, root)))
    name = _shown(change.path, root)
    if not sys.stdin.isatty():
        click.echo(f"{name} is kept: there is nobody to ask. --yes overwrites.")
        return False
    return click.confirm(f"Overwrite {name}?", default=False)


def _shown(path: Path, root: Path) -> str:
    return os.path.relpath(path, root)


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"


def _named(info: ScriptInfo, app: Flask) -> tuple[str, str]:
    """Return what FLASK_APP must say and what gunicorn must be given for this application."""
    given = info.app_import_path or next(
        (name for name in ("wsgi.py", "app.py") if Path(name).is_file()), app.name
    )
    path, _, name = given.partition(":")
    module = path.removesuffix(".py").replace("/", ".")
    if name:
        return given, f"{module}:{name if '(' in name or _is_app(module, name) else f'{name}()'}"
    return given, f"{module}:{_found(sys.modules.get(module), app)}"


def _is_app(module: str, name: str) -> bool:
    return isinstance(getattr(sys.modules.get(module), name, None), Flask)


def _found(module: ModuleType | None, app: Flask) -> str:
    """Return the variable or the call by which Flask has found the application in *module*."""
    names = vars(module) if module is not None else {}
    variable = next((name for name in (*_USUAL_APPS, *names) if names.get(name) is app), None)
    factory = next((name for name in _USUAL_FACTORIES if callable(names.get(name))), "create_app")
    return variable or f"{factory}()"
