"""Find the migrations, and read which revisions there are without Alembic: every serving process does."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_NAMES = ("migrations", "alembic")
_SIGNS = ("env.py", "versions", "script.py.mako")
"""One of these makes a folder one of migrations: Flask-Alembic needs no env.py, and may have no versions/."""

_ELSEWHERE = re.compile(r"^\s*version_locations\s*=", re.MULTILINE)


@dataclass(frozen=True)
class Folder:
    """A folder of migrations as `alembic init`, Flask-Migrate or Flask-Alembic makes it."""

    path: Path

    @property
    def has_env(self) -> bool:
        """True when it brings an env.py; Flask-Alembic's has none."""
        return (self.path / "env.py").is_file()

    @property
    def versions(self) -> Path:
        """Where the scripts are: `versions/`, or the folder itself as Flask-Alembic has it."""
        inside = self.path / "versions"
        return inside if inside.is_dir() else self.path

    @property
    def ini(self) -> Path | None:
        """The alembic.ini inside, as Flask-Migrate has it, or beside the folder."""
        places = (self.path / "alembic.ini", self.path.parent / "alembic.ini")
        return next((place for place in places if place.is_file()), None)

    @property
    def plain(self) -> bool:
        """True when all scripts are in `versions`; an alembic.ini may name other places."""
        return self.ini is None or not _ELSEWHERE.search(self.ini.read_text(encoding="utf-8"))


def find_folder(given: str, root: Path) -> Folder | None:
    """Return the folder of migrations of the application at *root*, None when there is none."""
    places = (root / given, Path.cwd() / given) if given else _usual(root)
    return next((Folder(place) for place in places if any((place / sign).exists() for sign in _SIGNS)), None)


def _usual(root: Path) -> Iterator[Path]:
    for base in dict.fromkeys((root, root.parent, Path.cwd())):
        yield from (base / name for name in _NAMES)


@dataclass(frozen=True)
class Revisions:
    """What there is of scripts: all revisions, and the newest ones."""

    all: frozenset[str]
    heads: frozenset[str]


def revisions_of(versions: Path) -> Revisions:
    """Return the revisions of the scripts in *versions*; ValueError for a script that cannot be read."""
    revisions = [found for path in sorted(versions.glob("*.py")) if (found := _read(path))]
    followed = {name for _, before in revisions for name in before}
    names = frozenset(name for name, _ in revisions)
    return Revisions(names, names - followed)


def _read(path: Path) -> tuple[str, tuple[str, ...]] | None:
    """Return a script's revision and those that it stands on; None for a module that is no script."""
    try:
        body = ast.parse(path.read_bytes()).body
        values = dict(_assigned(body))
    except (SyntaxError, ValueError, OSError) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from error
    revision = values.get("revision")
    if not isinstance(revision, str):
        return None
    return revision, (*_names(values.get("down_revision")), *_names(values.get("depends_on")))


def _assigned(body: Iterable[ast.stmt]) -> Iterator[tuple[str, object]]:
    wanted = ("revision", "down_revision", "depends_on")
    for statement in body:
        if isinstance(statement, ast.Assign):
            targets, value = statement.targets, statement.value
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            targets, value = [statement.target], statement.value
        else:
            continue
        for target in targets:
            if isinstance(target, ast.Name) and target.id in wanted:
                yield target.id, ast.literal_eval(value)


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return tuple(str(item) for item in value) if isinstance(value, list | tuple | set) else ()
