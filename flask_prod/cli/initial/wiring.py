"""The lines of code that give an application its kit: an import, `prod = ProdKit()`, and `prod.init_app(app)`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from .imports import import_kit, import_prod, last_import
from .origin import Function, Origin, called, names_of, scope, target_of
from .project import Module, Project
from .text import ByHand

KIT = {"flask_prod": "ProdKit"}
_EXTENSIONS = ("extensions", "extension", "exts", "ext")
_NAMES = ("prod", "production", "prod_layer")


@dataclass(frozen=True)
class Kit:
    """A `prod = ProdKit()` that is there already."""

    module: Module
    variable: str


def wire(project: Project, origin: Origin) -> list[Module]:
    """Add to the texts what is missing, and return the modules that change; none when all is there.

    ByHand, before anything is added, where only the author can tell the right place.
    """
    kits = list(_kits(project))
    if any(_installed(project, kit) for kit in kits) or _made_with_app(project):
        return []
    places = _places(project, origin)
    if kits:
        home, variable = kits[0].module, kits[0].variable
    else:
        home = _home(project, origin)
        variable = _free_name(home, origin.module)
        _make(home, variable, origin)
    seen = variable if home is origin.module else import_prod(project, origin, home, variable)
    for line, indent, after in places:
        origin.module.text.add_after(line if after else line - 1, f"{indent}{seen}.init_app({origin.variable})")
    return list(dict.fromkeys([home, origin.module])) if not kits else [origin.module]


def _kits(project: Project) -> Iterator[Kit]:
    for module in project.everything():
        names = names_of(module, KIT)
        for node in scope(module.tree) if names else ():
            target = target_of(node)
            if target is not None and called(getattr(node, "value", None), names):
                yield Kit(module, ast.unparse(target))


def _installed(project: Project, kit: Kit) -> bool:
    """Say whether somebody calls `prod.init_app(...)`, or gave the kit its application when it was made."""
    for module in project.everything():
        if module is not kit.module and kit.module not in project.imported(module):
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = ast.unparse(node.func.value)
                if node.func.attr == "init_app" and owner.rpartition(".")[2] == kit.variable:
                    return True
    return False


def _made_with_app(project: Project) -> bool:
    return any(
        called(node, names) and isinstance(node, ast.Call) and node.args
        for module in project.everything()
        if (names := names_of(module, KIT))
        for node in ast.walk(module.tree)
    )


def _home(project: Project, origin: Origin) -> Module:
    """Return the module of extensions, if the application's imports one or has one beside it, else its own."""
    for module in project.imported(origin.module):
        if module.name.rpartition(".")[2] in _EXTENSIONS:
            return module
    beside = origin.module.package
    for name in _EXTENSIONS:
        found = project.module(f"{beside}.{name}" if beside else name)
        if found is not None and beside:
            return found
    return origin.module


def _free_name(*modules: Module) -> str:
    taken = {name for module in modules for name in _bound(module)}
    return next(name for name in (*_NAMES, "flask_prod_kit") if name not in taken)


def _bound(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.alias):
            yield node.asname or node.name.partition(".")[0]
        elif isinstance(node, ast.arg):
            yield node.arg


def _make(home: Module, variable: str, origin: Origin) -> None:
    """Import ProdKit and make the kit: below other extensions, before an application of the same module."""
    names = names_of(home, KIT)
    import_line = 0
    if not names:
        import_line = import_kit(home)
    line = f"{variable} = {min(names, default='ProdKit')}()"
    body = home.tree.body
    if home is origin.module:
        owner = next(index for index, stmt in enumerate(body) if _within(origin.line, stmt))
        if origin.function is None:
            above = _above_comments(home, body[owner])
            home.text.add_after(above, *([""] if home.text.line(above).strip() else []), line)
            return
        body = body[:owner]
    beside = [s for s in body if isinstance(s, (ast.Assign, ast.AnnAssign)) and _extension(s)]
    if beside:
        home.text.add_after(beside[-1].end_lineno or beside[-1].lineno, line)
        return
    after = max(last_import(home), import_line)
    following = [] if not home.text.line(after + 1).strip() else [""]
    home.text.add_after(after, *([""] if after else []), line, *following)


def _extension(statement: ast.Assign | ast.AnnAssign) -> bool:
    """Say whether this looks like `db = SQLAlchemy()`: a class is called, at the top of a module."""
    value = statement.value
    return isinstance(value, ast.Call) and ast.unparse(value.func).rpartition(".")[2][:1].isupper()


def _within(line: int, statement: ast.stmt) -> bool:
    return statement.lineno <= line <= (statement.end_lineno or statement.lineno)


def _above_comments(module: Module, statement: ast.stmt) -> int:
    """Return the line before a statement and before the comments that belong to it."""
    line = statement.lineno - 1
    while line and module.text.line(line).lstrip().startswith("#"):
        line -= 1
    return line


Place = tuple[int, str, bool]
"""A line, the indentation there, and whether to write after it rather than before."""


def _places(project: Project, origin: Origin) -> list[Place]:
    """Return where the kit is to be installed; ByHand, with the reason, where that cannot be said."""
    reason = _unclear(origin)
    places: list[Place] = []
    if not reason:
        try:
            places = _in_function(origin, origin.function) if origin.function else [_in_module(origin)]
        except ByHand as error:
            reason = str(error)
    if reason:
        raise ByHand(
            f"{project.shown(origin.module.path)}, line {origin.line}: {reason}. Write it by hand: "
            "`from flask_prod import ProdKit` and `prod = ProdKit()` at the top, and "
            f"`prod.init_app({origin.variable or 'app'})` where the application is configured."
        )
    return places


def _unclear(origin: Origin) -> str:
    """Say why the place cannot be told; empty when it can."""
    if not origin.variable:
        return "the application is returned without a name"
    if isinstance(origin.function, ast.AsyncFunctionDef):
        return f"{origin.name} is async, which neither Flask's commands nor gunicorn can call"
    owner: ast.Module | Function = origin.function or origin.module.tree
    again = next((node for node in scope(owner) if _binds(node, origin)), None)
    if again is not None:
        return f"{origin.variable} is another object from line {getattr(again, 'lineno', 0)} on"
    return ""


def _binds(node: ast.AST, origin: Origin) -> bool:
    target = target_of(node)
    if target is None or node in origin.made or getattr(node, "value", None) is None:
        return False
    # `app = None` before the application is made is a declaration.
    return ast.unparse(target) == origin.variable and getattr(node, "lineno", 0) > origin.line


def _in_function(origin: Origin, function: Function) -> list[Place]:
    """Before every `return` of the application: all that configures it has run by then."""
    returns = [
        node
        for node in scope(function)
        if isinstance(node, ast.Return) and node.value is not None and _mentions(node.value, origin.variable)
    ]
    if not returns:
        raise ByHand(f"{origin.name} does not return {origin.variable}")
    places: list[Place] = []
    for node in returns:
        line = origin.module.text.line(node.lineno)
        indent = line[: len(line) - len(line.lstrip())]
        if not line.lstrip().startswith("return"):
            raise ByHand(f"the `return` in line {node.lineno} is not alone in its line")
        places.append((node.lineno, indent, False))
    return places


def _in_module(origin: Origin) -> Place:
    """After the last statement that uses the application, without its views and without `app.run()`."""
    body = [s for s in origin.module.tree.body if (s.end_lineno or s.lineno) >= origin.line]
    if _is_main(body[0]):
        raise ByHand('below `if __name__ == "__main__"` gunicorn finds no application')
    if isinstance(body[0], _DEFINITIONS):
        raise ByHand(f"{origin.variable} is made inside of a class")
    last = body[0]
    for statement in body[1:]:
        if _is_main(statement) or isinstance(statement, _DEFINITIONS):
            continue
        if any(called(node, {f"{origin.variable}.run"}) for node in ast.walk(statement)):
            break
        beside = statement.lineno == last.end_lineno  # a semicolon
        if beside or any(_mentions(node, origin.variable) for node in (statement, *_plain(statement))):
            last = statement
    return last.end_lineno or last.lineno, "", True


_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _plain(statement: ast.stmt) -> Iterator[ast.AST]:
    """Yield the parts of a statement, without functions that it defines."""
    yield from scope(ast.Module([statement], []))


def _mentions(node: ast.AST, variable: str) -> bool:
    return any(
        isinstance(one, (ast.Name, ast.Attribute)) and ast.unparse(one) == variable for one in ast.walk(node)
    )


def _is_main(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and "__name__" in ast.unparse(statement.test)
