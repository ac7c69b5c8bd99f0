"""Import lines for the kit, in the form and at the place that a module's own imports have."""

from __future__ import annotations

import ast

from .origin import Origin
from .project import Module, Project

WIDTH = 88
"""A line of imports longer than this gets a sibling rather than one more name."""


def import_kit(module: Module) -> int:
    """Add `from flask_prod import ProdKit` where the alphabet has it; return the line it comes after."""
    imports = [s for s in module.tree.body if isinstance(s, (ast.Import, ast.ImportFrom))]
    flasks = [s for s in imports if _source(s).startswith("flask") and _source(s) < "flask_prod"]
    line = _end_of_run(flasks)
    if not line:
        later = next((s for s in imports if _source(s).startswith("flask_")), None)
        line = later.lineno - 1 if later else last_import(module)
    module.text.add_after(line, "from flask_prod import ProdKit")
    return line


def import_prod(project: Project, origin: Origin, home: Module, variable: str) -> str:
    """Make the kit of *home* known where the application is made, and return what it is called there."""
    module = origin.module
    owners = [module.tree.body, origin.function.body if origin.function else []]
    for statement in (s for body in owners for s in body if s.lineno < _last_line(origin)):
        if not isinstance(statement, ast.ImportFrom):
            continue
        source = module.absolute(statement)
        if source == home.name:
            own = next((alias for alias in statement.names if alias.name == variable), None)
            if own is not None:
                return own.asname or own.name
            if _extend(module, statement, variable):
                return variable
        for alias in statement.names:
            if f"{source}.{alias.name}".strip(".") == home.name:
                return f"{alias.asname or alias.name}.{variable}"
    module.text.add_after(last_import(module), f"from {_spelled(module, home)} import {variable}")
    return variable


def last_import(module: Module) -> int:
    """Return the last line of the imports at the top; of the docstring, or 0, if there are none."""
    last = 0
    for statement in module.tree.body:
        if not _opening(statement):
            break
        last = statement.end_lineno or last
    return last


def _opening(statement: ast.stmt) -> bool:
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return True
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    inner = list(ast.iter_child_nodes(statement))
    return isinstance(statement, (ast.If, ast.Try)) and any(
        isinstance(n, (ast.Import, ast.ImportFrom)) for n in inner
    )


def _extend(module: Module, statement: ast.ImportFrom, name: str) -> bool:
    """Add *name* to an import; False where that would not look well, or is not needed."""
    last = statement.names[-1]
    end_line, end = last.end_lineno or last.lineno, last.end_col_offset or 0
    if last.name == "*":
        return False
    text = module.text
    line = text.line(end_line)
    cut = len(line.encode()[:end].decode())  # the tree counts bytes
    if end_line == statement.end_lineno:
        if len(line) + len(name) + 2 > WIDTH:
            return False
        text.replace(end_line, f"{line[:cut]}, {name}{line[cut:]}")
        return True
    if end_line == statement.lineno:
        return False
    if not line[cut:].lstrip().startswith(","):
        text.replace(end_line, f"{line[:cut]},{line[cut:]}")
    indent = line[: len(line) - len(line.lstrip())]
    text.add_after(end_line, f"{indent}{name},")
    return True


def _spelled(module: Module, home: Module) -> str:
    """Return how *module* names *home*: relative within a package, as Flask's own examples do."""
    package = module.package
    if package and home.name.startswith(f"{package}."):
        return home.name[len(package) :]
    return home.name


def _last_line(origin: Origin) -> int:
    if origin.function is None:
        return origin.line
    return origin.function.end_lineno or origin.line


def _source(statement: ast.Import | ast.ImportFrom) -> str:
    if isinstance(statement, ast.ImportFrom):
        return "" if statement.level else statement.module or ""
    return statement.names[0].name


def _end_of_run(statements: list[ast.Import | ast.ImportFrom]) -> int:
    """Return the last line of the statements that follow the first without a line between; 0 if there are none."""
    last = 0
    for statement in statements:
        if last and statement.lineno != last + 1:
            break
        last = statement.end_lineno or statement.lineno
    return last
