"""The files around an application: of gunicorn, settings, Makefile, requirements. What is there is added to."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .text import Text

DISTRIBUTION = "flask-prod"

GUNICORN = '''\
"""How gunicorn serves this application; `gunicorn {entry}` finds this file itself.

Whatever you define above the last line wins: `workers = 8`, or a hook of your own, which is called together
with the kit's. Without: bind from HOST and PORT, one worker per CPU of the container (WEB_CONCURRENCY wins).
"""

from flask_prod.server.gunicorn import compose

globals().update(compose(globals()))
'''

GUNICORN_END = (
    "",
    "# What this file does not define comes from flask-prod; hooks of both are called.",
    "from flask_prod.server.gunicorn import compose  # noqa: E402",
    "",
    "globals().update(compose(globals()))",
)

SETTINGS = """\
# Settings of production (ENVIRONMENT=production, which is the default); `flask prod settings` lists what there is.
# A variable of the environment wins over this file; a key set in app.config wins over both. No secrets here:
# they come from the environment, from files in /run/secrets, or from .env (see .env.example).

# The name in logs, metrics and traces, and in front of every key in Redis.
SERVICE_NAME = "{service}"

# The host names of your site: others are answered with 400. Until it is set, any name is answered.
# ALLOWED_HOSTS = ["www.example.com", "example.com"]

# Scripts and styles in the pages need a nonce, and other hosts a place in SECURITY_CSP; until they have, this only
# reports what would be blocked.
# SECURITY_CSP_REPORT_ONLY = true

# How many proxies stand in front (a load balancer, nginx). 0 believes no X-Forwarded header: behind a proxy that
# ends TLS, set 1, or every request is redirected to https for ever.
# TRUSTED_PROXIES = 1
"""

ENV_EXAMPLE = """\
# Secrets and addresses: copy this file to .env, which stays out of version control, take away the `#`, fill in.
# In production they are better kept as files in /run/secrets; NAME_FILE=/path names any other file.

# Signs sessions. Make one with: flask prod secret generate SECRET_KEY
# SECRET_KEY=

# Shared limits, cache and jobs; without it each process has its own. redis://:password@host:6379/0
# REDIS_URL=

# postgresql+psycopg://user:password@host/name, if the kit is to open the database.
# DATABASE_URL=

# Whoever sends it as `Authorization: Bearer` may scrape /metrics; without it only private networks may.
# METRICS_TOKEN=

# Where errors are reported.
# SENTRY_DSN=
"""

TARGETS = {
    "run": ("run this application for development", "ENVIRONMENT=development {flask} run --debug"),
    "prod": ("run it as in production: web, worker and a local Valkey", "{flask} prod up"),
    "check": ("is this ready for production?", "{flask} prod check"),
    "worker": ("run background jobs", "{flask} prod worker"),
}
"""Makefile target -> what it is for, and its one command."""


@dataclass
class Around:
    """What is to be done about the files of one folder."""

    root: Path
    texts: list[Text] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def new(self, name: str, content: str) -> None:
        """Write a file that is not there; one that is there stays as it is."""
        text = Text(self.root / name)
        if text.before is None:
            text.add_after(0, *content.splitlines())
            self.texts.append(text)


def plan_files(root: Path, *, service: str, entry: str, flask: str) -> Around:
    """Return what is missing around the application of *root*.

    *entry* is what a shell gives to gunicorn, *flask* the command with its `--app`.
    """
    around = Around(root)
    _gunicorn(around, entry)
    _settings(around, service)
    around.new(".env.example", ENV_EXAMPLE)
    _makefile(around, flask)
    _requirements(around)
    return around


def _gunicorn(around: Around, entry: str) -> None:
    path = around.root / "gunicorn.conf.py"
    if not path.exists():
        around.new(path.name, GUNICORN.format(entry=entry))
        return
    text = Text(path)
    if "flask_prod" not in text.text:
        text.add_after(len(text.lines), *GUNICORN_END)
        around.texts.append(text)


def _settings(around: Around, service: str) -> None:
    path = around.root / "config" / "production.toml"
    if path.exists():
        if "SERVICE_NAME" not in Text(path).text:
            around.skipped.append(
                f'config/production.toml is there already; it may name SERVICE_NAME = "{service}".'
            )
    elif (around.root / "config").is_file():
        around.skipped.append("config is a file: write production.toml into a folder that CONFIG_DIR names.")
    else:
        around.new("config/production.toml", SETTINGS.format(service=service))


def _makefile(around: Around, flask: str) -> None:
    """Add the targets that are missing, each with its help in a comment as `make help` targets read it."""
    found = (around.root / name for name in ("GNUmakefile", "makefile", "Makefile"))
    path = next((one for one in found if one.exists()), around.root / "Makefile")
    text = Text(path)
    if ".RECIPEPREFIX" in text.text:
        around.skipped.append(f"{path.name} has a .RECIPEPREFIX of its own; its targets are yours to write.")
        return
    have = set(_targets(text.text))
    missing = [name for name in TARGETS if name not in have]
    if not missing:
        return
    lines = [f".PHONY: {' '.join(missing)}"]
    for name in missing:
        purpose, command = TARGETS[name]
        lines += ["", f"{name}:  ## {purpose}", "\t" + command.format(flask=flask)]
    last = len(text.lines)
    text.add_after(last, *([""] if last and text.line(last).strip() else []), *lines)
    around.texts.append(text)


def _targets(makefile: str) -> Iterator[str]:
    for line in makefile.splitlines():
        rule = re.match(r"([^\s#:=][^#:=]*?)\s*::?(?!=)", line)
        if rule and not line.startswith(("\t", ".PHONY")):
            yield from rule[1].split()


def _requirements(around: Around) -> None:
    """Require flask-prod where the project lists what it needs."""
    requirement = f"{DISTRIBUTION}>={_version()}"
    source = next(
        (one for n in ("requirements.in", "requirements.txt") if (one := around.root / n).exists()), None
    )
    pyproject = around.root / "pyproject.toml"
    if pyproject.exists() and _in_pyproject(around, pyproject, requirement):
        return
    if source is None:
        _other_lists(around, requirement)
        return
    text = Text(source)
    if _named(text.text.splitlines()):
        return
    if "--hash" in text.text:
        around.skipped.append(f"{source.name} has hashes: add {requirement} where it is made from.")
        return
    text.add_after(len(text.lines), requirement)
    around.texts.append(text)
    if source.suffix == ".in":
        around.skipped.append("requirements.in has changed: make requirements.txt from it again (pip-compile).")


def _other_lists(around: Around, requirement: str) -> None:
    """Say where else a project may list what it needs."""
    for name in ("Pipfile", "setup.cfg", "setup.py", "environment.yml"):
        path = around.root / name
        if path.is_file() and not re.search(r"flask[-_]prod", Text(path).text):
            around.skipped.append(f"{name}: add {requirement} to what the project needs.")


def _in_pyproject(around: Around, path: Path, requirement: str) -> bool:
    """Add to `[project] dependencies`; False when the project does not list them there."""
    text = Text(path)
    try:
        before = tomllib.loads(text.text)
    except tomllib.TOMLDecodeError as error:
        around.skipped.append(f"pyproject.toml cannot be read ({error}): add {requirement} to its dependencies.")
        return True
    if "poetry" in before.get("tool", {}) and "dependencies" not in before.get("project", {}):
        around.skipped.append(f"pyproject.toml is Poetry's: run `poetry add {DISTRIBUTION}`.")
        return True
    listed = before.get("project", {}).get("dependencies")
    if listed is None:
        return False
    if _named(listed):
        return True
    wanted = {**before, "project": {**before["project"], "dependencies": [*listed, requirement]}}
    for edit in (_on_own_line, _on_same_line):
        changed = Text(path)
        edit(changed, requirement)
        if _reads_as(changed, wanted):
            around.texts.append(changed)
            return True
    around.skipped.append(f"pyproject.toml: add {requirement!r} to the dependencies of [project].")
    return True


def _on_own_line(text: Text, requirement: str) -> None:
    """Add a line before the bracket that ends the list, and a comma before it if there is none."""
    inside = False
    for number in range(1, len(text.lines) + 1):
        line = text.line(number)
        inside = inside or re.match(r"dependencies\s*=\s*\[\s*(#.*)?$", line) is not None
        if inside and line.strip() == "]":
            last = text.line(number - 1)
            indent = last[: len(last) - len(last.lstrip())] or "    "
            if re.search(r"[\"']\s*$", last):
                text.replace(number - 1, f"{last.rstrip()},")
            text.add_after(number - 1, f'{indent}"{requirement}",')
            return


def _on_same_line(text: Text, requirement: str) -> None:
    for number in range(1, len(text.lines) + 1):
        line = text.line(number)
        match = re.match(r"dependencies\s*=\s*\[(.*)\]\s*(#.*)?$", line)
        if match:
            comma = ", " if match[1].strip().rstrip(",") else ""
            inner = match[1].rstrip().rstrip(",")
            text.replace(number, f'{line[: match.start(1)]}{inner}{comma}"{requirement}"{line[match.end(1) :]}')
            return


def _reads_as(text: Text, wanted: dict[str, object]) -> bool:
    try:
        return tomllib.loads(text.result().decode()) == wanted
    except tomllib.TOMLDecodeError:
        return False


def _named(requirements: list[str]) -> bool:
    pattern = re.compile(r"\s*flask[-_.]prod\b(?![-_.])", re.IGNORECASE)
    return any(pattern.match(one) for one in requirements)


def _version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "0.1"
