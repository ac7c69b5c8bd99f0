"""What an image is built of: the user's project as it lies on disk."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

_BESIDE = ("gunicorn.conf.py", "config", "migrations", "alembic", "alembic.ini")
"""What a service reads from the folder it runs in."""

_SHOWN = {"github": "/blob/HEAD/", "gitlab": "/-/blob/HEAD/"}
"""What is in the name of a host -> what is between a repository and a file there."""

_CONSTRAINTS = ("constraints.txt", "requirements.lock")


@dataclass(frozen=True)
class Project:
    """A folder with an application: `entry` is what gunicorn is given, `flask_app` what FLASK_APP says.

    `home` is the folder of the application itself, where its templates are.
    """

    root: Path
    entry: str
    flask_app: str
    home: Path

    @property
    def is_package(self) -> bool:
        """Whether pip builds the project itself; else it is its own files, and what requirements.txt names."""
        return "project" in self._said or "poetry" in self._said.get("tool", {})

    @property
    def shown_at(self) -> str:
        """The address in front of a file of the project, where its repository shows it; empty if not known."""
        urls = {name.lower(): str(url) for name, url in self._said.get("project", {}).get("urls", {}).items()}
        named = (urls[name] for name in ("repository", "source", "source code", "homepage") if name in urls)
        for url in (url.removesuffix("/").removesuffix(".git") for url in named):
            for sign, between in _SHOWN.items():
                if re.match(rf"https://[^/]*{sign}[^/]*/[^/]+/[^/]", url):
                    return f"{url}{between}"
        return ""

    @cached_property
    def _said(self) -> dict[str, Any]:
        """Return what pyproject.toml says; nothing where it is missing or broken."""
        try:
            return tomllib.loads((self.root / "pyproject.toml").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    @property
    def sources(self) -> Sequence[str]:
        """What the service reads where it runs, beside the wheel of a package; folders end with a slash."""
        modules = {self.entry.partition(":")[0].split(".")[0], Path(self.flask_app.partition(":")[0]).parts[0]}
        top = self._home.parts[0] if self._home.parts else ""
        if (self.root / top / "__init__.py").is_file():
            modules.add(top)  # what a wsgi.py imports; the wheel may lack its templates
        names = {name for module in modules for name in (module, f"{module.removesuffix('.py')}.py")}
        found = sorted(name for name in {*names, *_BESIDE} if (self.root / name).exists())
        return [f"{name}/" if (self.root / name).is_dir() else name for name in found]

    @property
    def profiles(self) -> str:
        """The folder of profile files where the web server's master would not look: it knows no application."""
        here, there = (self.root / "config").is_dir(), (self.root / self._home / "config").is_dir()
        return (self._home / "config").as_posix() if there and not here else ""

    @property
    def _home(self) -> Path:
        """Return `home` below the root; Flask follows links to the application, and we may have come by one."""
        return self.home.relative_to(self.root) if self.home.is_relative_to(self.root) else Path(self.home.name)

    @property
    def constraints(self) -> str:
        """The file that pins the versions of all packages; empty if there is none."""
        return next((name for name in _CONSTRAINTS if (self.root / name).is_file()), "")
