"""The Python files of a project, read and never run, and the names they import from one another."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .text import ByHand, Text

MOST = 2_000
"""Files that are looked at; a folder with more of them is no project."""

_FOREIGN = frozenset(
    {"node_modules", "site-packages", "__pycache__", "build", "dist", "tests", "test", "venv", "env"}
)


@dataclass(frozen=True, eq=False)
class Module:
    """One file, its name as others import it, and its tree."""

    name: str
    text: Text
    tree: ast.Module

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.text.path

    @property
    def is_package(self) -> bool:
        """Whether it is the `__init__.py` of a package."""
        return self.path.name == "__init__.py"

    @property
    def package(self) -> str:
        """The package that its relative imports begin at; empty for a file that is in none."""
        return self.name if self.is_package else self.name.rpartition(".")[0]

    def absolute(self, statement: ast.ImportFrom) -> str:
        """Return the full name of what a `from ... import` names."""
        if not statement.level:
            return statement.module or ""
        parts = self.package.split(".")
        base = parts[: len(parts) - statement.level + 1]
        return ".".join([*base, *filter(None, [statement.module])])


class Project:
    """The modules below one folder, and below its `src`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: dict[Path, Module] = {}

    def module(self, name: str) -> Module | None:
        """Return the module of this dotted name; None when it is not the project's."""
        for base in (self.root, self.root / "src"):
            place = base.joinpath(*name.split("."))
            for path in (place / "__init__.py", place.with_name(f"{place.name}.py")):
                if name and path.is_file():
                    return self.read(path)
        return None

    def read(self, path: Path) -> Module:
        """Return the module in *path*; ByHand when it is not Python."""
        path = path.resolve()
        if path not in self._known:
            text = Text(path)
            try:
                tree = ast.parse(text.text)
            except (SyntaxError, ValueError) as error:
                line = getattr(error, "lineno", None) or 1
                raise ByHand(f"{self.shown(path)}, line {line}: this is not Python: {error}.") from error
            self._known[path] = Module(_name(path), text, tree)
        return self._known[path]

    def everything(self) -> Iterator[Module]:
        """Yield the project's modules without its tests; a file that is not Python is left out."""
        count = 0
        for folder, folders, files in os.walk(self.root):
            folders[:] = sorted(f for f in folders if is_own(Path(folder, f)))
            for name in sorted(files):
                if not name.endswith(".py") or name.startswith("test_") or name == "conftest.py":
                    continue
                count += 1
                if count > MOST:
                    return
                try:
                    yield self.read(Path(folder, name))
                except ByHand:
                    continue

    def imported(self, module: Module) -> Iterator[Module]:
        """Yield the project's modules that *module* imports, in the order of its text."""
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = module.absolute(node)
                names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
            else:
                continue
            yield from filter(None, map(self.module, names))

    def reachable(self, start: Module) -> Iterator[Module]:
        """Yield *start*, then what it imports, then what that imports."""
        seen = {start}
        waiting = [start]
        while waiting:
            module = waiting.pop(0)
            yield module
            for other in self.imported(module):
                if other not in seen:
                    seen.add(other)
                    waiting.append(other)

    def shown(self, path: Path) -> str:
        """Return a path as people read it: from the project's folder."""
        root = self.root.resolve()
        return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _name(path: Path) -> str:
    """Return the dotted name that Flask would import the file by: up to the last folder with an `__init__.py`."""
    parts = [] if path.name == "__init__.py" else [path.stem]
    folder = path.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(parts)


def is_own(folder: Path) -> bool:
    """Say whether a folder is the project's: not hidden, no environment, no tests, nothing built."""
    hidden = folder.name.startswith(".") or folder.name in _FOREIGN
    return not hidden and not (folder / "pyvenv.cfg").exists()
