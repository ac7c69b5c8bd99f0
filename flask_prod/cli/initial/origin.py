"""Where an application is made: `app = Flask(...)` in a module or in a function, found in the tree."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from .project import Module, Project
from .text import ByHand

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
_KINDS = {"flask": "Flask", "apiflask": "APIFlask", "flask_openapi3": "OpenAPI"}
"""Classes of applications, by the module they are imported from; subclasses in the project are found too."""

_FIRST = ("app", "application", "create_app", "make_app")
"""What Flask's own commands take where a module has several, in its order."""


@dataclass(frozen=True, eq=False)
class Origin:
    """One place where an application is made; *function* is None at the top of a module."""

    module: Module
    function: Function | None
    variable: str
    made: tuple[ast.stmt, ...]

    @property
    def name(self) -> str:
        """The name that stands after the colon of `--app module:name`."""
        return self.function.name if self.function else self.variable

    @property
    def target(self) -> str:
        """What gunicorn is given."""
        return f"{self.module.name}:{self.name}{'()' if self.function else ''}"

    @property
    def line(self) -> int:
        """The line of the first statement that makes it."""
        return self.made[0].lineno


@dataclass(frozen=True)
class Wanted:
    """What the user, or Flask's own rule, points to."""

    module: Module | None
    name: str
    spec: str | None
    """The text after `--app`; None where Flask finds the application without one."""


def wanted(project: Project, spec: str | None) -> Wanted:
    """Return what *spec* (of --app or FLASK_APP) means, else `wsgi.py` or `app.py` as Flask's commands do."""
    if spec is None:
        own = next((p for n in ("wsgi.py", "app.py") if (p := project.root / n).is_file()), None)
        return Wanted(project.read(own) if own else None, "", None)
    path, _, name = re.sub(r":(?![\\/])", "\0", spec, count=1).partition("\0")
    module = _located(project, path.strip())
    if module is None:
        raise ByHand(f"There is no module {path!r} in {project.root}: --app takes a module, a package or a file.")
    return Wanted(module, re.match(r"\w*", name.strip())[0], spec)  # type: ignore[index]


def origins(project: Project, want: Wanted) -> list[Origin]:
    """Return the places that may be meant, in the module or in what it imports; one where it is clear."""
    kinds = _kinds(project)
    if want.module is None:
        return [one for module in project.everything() for one in _in_module(module, kinds)]
    for module in project.reachable(want.module):
        found = list(_in_module(module, kinds))
        if found:
            return _chosen(found, want.name if module is want.module else "")
    return []


def scope(owner: ast.Module | Function) -> Iterator[ast.AST]:
    """Yield the nodes of a module or function in the order of its text, without functions and classes in it."""
    waiting: list[ast.AST] = list(owner.body)
    while waiting:
        node = waiting.pop(0)
        yield node
        if not isinstance(node, _SCOPES):
            waiting[:0] = ast.iter_child_nodes(node)


def bound_at_top(module: Module) -> set[str]:
    """Return the names that a module assigns, defines or imports at its top."""
    names: set[str] = set()
    for node in scope(module.tree):
        target = target_of(node)
        if isinstance(target, ast.Name):
            names.add(target.id)
        elif isinstance(node, _SCOPES[:3]):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


def target_of(node: ast.AST) -> ast.expr | None:
    """Return what an assignment binds, if that is one name or attribute."""
    if isinstance(node, ast.Assign):
        return node.targets[0]
    return node.target if isinstance(node, ast.AnnAssign) else None


def called(node: ast.AST | None, names: set[str]) -> bool:
    """Say whether *node* calls one of *names*, which may be dotted."""
    return isinstance(node, ast.Call) and ast.unparse(node.func) in names


def names_of(module: Module, sources: dict[str, str]) -> set[str]:
    """Return how *module* spells what it imports: {"flask": "Flask"} gives `Flask` or `flask.Flask`."""
    found: set[str] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            found |= {
                f"{alias.asname or alias.name}.{sources[alias.name]}"
                for alias in node.names
                if alias.name in sources
            }
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found |= {alias.asname or alias.name for alias in node.names if alias.name == sources.get(node.module)}
    return found


def _located(project: Project, path: str) -> Module | None:
    place = (project.root / path).resolve()
    for file in (place, place / "__init__.py", place.with_name(f"{place.name}.py")):
        if file.suffix == ".py" and file.is_file():
            return project.read(file)
    return project.module(path) if re.fullmatch(r"[\w.]+", path) else None


def _kinds(project: Project) -> dict[Module, set[str]]:
    """Return by module the names of classes that make an application."""
    kinds = {module: names_of(module, _KINDS) for module in project.everything()}
    own: dict[str, str] = {}
    for module, names in kinds.items():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef) and any(ast.unparse(base) in names for base in node.bases):
                names.add(node.name)
                own[node.name] = module.name
    for module, names in kinds.items():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ImportFrom):
                names |= {a.asname or a.name for a in node.names if own.get(a.name) == module.absolute(node)}
    return kinds


def _in_module(module: Module, kinds: dict[Module, set[str]]) -> Iterator[Origin]:
    names = kinds.get(module) or names_of(module, _KINDS)
    if not names:
        return
    owners: list[ast.Module | Function] = [module.tree]
    owners += [node for node in ast.walk(module.tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    for owner in owners:
        made: dict[str, list[ast.stmt]] = {}
        for node in scope(owner):
            value = getattr(node, "value", None)
            target = target_of(node)
            if target is not None and isinstance(node, ast.stmt) and called(value, names):
                made.setdefault(ast.unparse(target), []).append(node)
            elif isinstance(node, ast.Return) and called(value, names):
                made.setdefault("", []).append(node)
        function = None if isinstance(owner, ast.Module) else owner
        yield from (Origin(module, function, variable, tuple(where)) for variable, where in made.items())


def _chosen(found: list[Origin], name: str) -> list[Origin]:
    """Return the one that is named, else the one that Flask would take, else all."""
    if name:
        named = [one for one in found if name in (one.name, one.variable)]
        return named or found
    for first in _FIRST:
        one = [origin for origin in found if origin.name == first]
        if len(one) == 1:
            return one
    return found


def where(project: Project, origin: Origin) -> str:
    """Return file and line of an origin, and what it is called."""
    return f"{project.shown(Path(origin.module.path))}, line {origin.line}: {origin.name or origin.variable}"
