"""`flask prod init`: gives an existing Flask application a kit, after showing what that changes."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import click
from flask.cli import ScriptInfo

from .initial.change import Change, changes_of, diff, write
from .initial.env import plan_env
from .initial.files import plan_files
from .initial.libraries import advice
from .initial.origin import Origin, Wanted, bound_at_top, origins, scope, wanted, where
from .initial.pages import blocked
from .initial.project import Module, Project
from .initial.text import ByHand
from .initial.trial import try_out
from .initial.wiring import wire

_USUAL = frozenset({"app", "application", "wsgi", "main", "run", "server", "src", "web", "website"})
"""Names of modules that say nothing of a service; its folder does."""


@dataclass
class Plan:
    """All that is to be changed, and what people should know of it."""

    changes: list[Change]
    entry: str
    notes: list[str] = field(default_factory=list)


@click.command()
@click.option("--yes", "-y", is_flag=True, help="Write without asking.")
@click.option("--dry-run", is_flag=True, help="Show the changes and write nothing.")
@click.option(
    "--with-env", is_flag=True, help="Make a .env with a generated SECRET_KEY too, and keep it out of git."
)
@click.pass_context
def init(ctx: click.Context, yes: bool, dry_run: bool, with_env: bool) -> None:
    """Give an existing Flask application a kit: show every change, ask, write, and try it.

    The code that makes the application is read, not run. Changed are the module that makes it (and its module of
    extensions), gunicorn.conf.py, config/production.toml, .env.example, the Makefile and the requirements. Nothing
    is overwritten: what is there is only added to. A second run finds nothing to do.

    \b
    Examples:
      flask prod init --dry-run
      flask --app shop prod init
      flask --app shop:create_app prod init --yes --with-env
    """
    root = Path.cwd()
    info = ctx.ensure_object(ScriptInfo)
    try:
        project = Project(root)
        want = wanted(project, info.app_import_path)
        origin = _picked(project, origins(project, want), ask=sys.stdin.isatty() and not yes)
        click.echo(f"The application is made in {where(project, origin)}.\n")
        plan = _plan(project, origin, want, with_env=with_env)
        if not _agreed(plan, root, yes=yes, dry_run=dry_run):
            return
        write(plan.changes)
    except ByHand as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"This cannot be written, and nothing was: {error}") from error
    _conclude(ctx, root, _spec(origin, want), plan.entry)


def _picked(project: Project, found: list[Origin], *, ask: bool) -> Origin:
    """Return the one origin; several are asked about on a terminal, and else refused with their names."""
    if len(found) == 1:
        return found[0]
    if not found:
        raise ByHand(
            f"No `app = Flask(...)` was found in {project.root} or in what the application imports from there: "
            "name its module, as in `flask --app shop prod init`."
        )
    rows = [f"{number}. {where(project, one)}" for number, one in enumerate(found, 1)]
    if ask:
        click.echo("\n".join(["Several applications are made here:", *rows]))
        return found[click.prompt("Which one", type=click.IntRange(1, len(found))) - 1]
    first = found[0]
    raise ByHand(
        "\n  ".join(["Several applications are made here:", *rows])
        + f"\nSay which by --app, as in `flask --app {first.module.name}:{first.name} prod init`."
    )


def _plan(project: Project, origin: Origin, want: Wanted, *, with_env: bool) -> Plan:
    """Return everything that is missing."""
    # First: once texts are wired, the lines of the tree are no longer those of the text.
    notes = [*advice(project), *blocked(project)]
    spec = _spec(origin, want)
    entry = _entry(project.root, origin, want)
    flask = " ".join(["flask", *(["--app", shlex.quote(spec).replace("$", "$$")] if spec else [])])
    changed = [module.text for module in wire(project, origin)]
    around = plan_files(project.root, service=_service(project.root, origin, want), entry=entry, flask=flask)
    changes = changes_of([*changed, *around.texts])
    if with_env:
        changes += plan_env(project.root)
    return Plan(changes, entry, [*notes, *around.skipped])


def _agreed(plan: Plan, root: Path, *, yes: bool, dry_run: bool) -> bool:
    """Show the changes and what else there is to know; say whether to write."""
    for change in plan.changes:
        click.echo("\n".join(diff(change, root)) + "\n")
    if plan.notes:
        click.secho("Not changed, for you to look at (lines as they are before the change):", bold=True)
        click.echo("".join(f"  - {note}\n" for note in plan.notes))
    if not plan.changes:
        click.echo("Nothing to do: the application has its kit, and the files are there.")
        return False
    if dry_run:
        click.echo(f"{_files(plan)} would change; nothing was written.")
        return False
    if _dirty(root):
        click.secho("Git knows of changes here that are not committed; these would join them.", fg="yellow")
    if yes or click.confirm(f"Write {_files(plan)}?", default=False):
        return True
    click.echo("Nothing was written.")
    return False


def _conclude(ctx: click.Context, root: Path, spec: str | None, entry: str) -> None:
    """Try the application as it is now, and say what comes next."""
    why = try_out(root, spec)
    if why:
        click.secho("All is written, but the application does not run:", fg="red", err=True)
        click.echo(why, err=True)
        ctx.exit(1)
    flask = f"flask --app {shlex.quote(spec)}" if spec else "flask"
    click.secho("The application runs with its kit: its liveness probe answers.", fg="green")
    click.echo(
        "Next:\n"
        f"  ENVIRONMENT=development {flask} prod up     web, worker and a local Valkey on your machine\n"
        f"  {flask} prod check     what production still needs\n"
        f"  {flask} prod config    the settings in force, and where each came from\n"
        f"  gunicorn {entry}    serves it in production"
    )


def _files(plan: Plan) -> str:
    return "1 file" if len(plan.changes) == 1 else f"{len(plan.changes)} files"


def _spec(origin: Origin, want: Wanted) -> str | None:
    """Return what `--app` must say from now on; None where Flask finds the application by itself."""
    if want.module is not None and (want.spec is None or ":" in want.spec or _finds(want.module, origin)):
        return want.spec
    return origin.module.name if origin.name in ("app", "create_app") else f"{origin.module.name}:{origin.name}"


def _finds(module: Module, origin: Origin) -> bool:
    """Say whether Flask finds the application in *module*: it is made or called there, or has a usual name."""
    if module is origin.module or {"app", "application", "create_app", "make_app"} & bound_at_top(module):
        return True
    return any(
        isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == origin.name
        for node in scope(module.tree)
    )


def _entry(root: Path, origin: Origin, want: Wanted) -> str:
    """Return what a shell gives to gunicorn: the variable of a wsgi.py, else the place where the app is made."""
    if want.module is not None and want.module is not origin.module:
        name = next((n for n in ("app", "application") if n in bound_at_top(want.module)), None)
        if name is not None:
            return f"{want.module.name}:{name}"
    source = origin.module.path.is_relative_to(root.resolve() / "src")
    made = want.spec.partition(":")[2] if want.spec and want.module is origin.module else ""
    target = f"{origin.module.name}:{made}" if "(" in made else origin.target
    return f"{'--pythonpath src ' if source else ''}{shlex.quote(target)}"


def _service(root: Path, origin: Origin, want: Wanted) -> str:
    modules = (origin.module, want.module or origin.module)
    names = (*(module.name.partition(".")[0] for module in modules), root.resolve().name)
    name = next((name for name in names if name not in _USUAL), names[-1])
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "app"


def _dirty(root: Path) -> bool:
    """Say whether git has changes here that are not committed; False where there is no git."""
    command = ["git", "status", "--porcelain", "--untracked-files=no"]
    try:
        run = subprocess.run(command, cwd=root, capture_output=True, timeout=10, check=False)  # noqa: S603  # git itself
    except (OSError, subprocess.TimeoutExpired):
        return False
    return run.returncode == 0 and bool(run.stdout.strip())
