"""The reference of log lines in docs/logs.md, made from the code that writes them.

`python -m flask_prod.components.logs.reference docs/logs.md` writes it between the two marks of that page; a test
compares.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

from .lines import LogLine, RequestLine
from .security import SECURITY_EVENTS

BEGIN, END = "<!-- reference: begin -->", "<!-- reference: end -->"
_EVENT = re.compile(r"prod\.[a-z_]+\.[a-z_]+")


def reference() -> str:
    """Return the fields of both kinds of line, and the names of all events."""
    return "\n".join(_page())


def write(page: Path) -> None:
    """Put the reference between the marks of *page*; ValueError when it has none."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no {BEGIN} and {END}.")
    page.write_text(f"{before}{BEGIN}\n{reference()}\n{END}{after}", encoding="utf-8")


def events() -> Mapping[str, str]:
    """Return the events of rooms, core and server, read from their source: name -> where it comes from."""
    package = Path(__file__).parents[2]
    found: dict[str, str] = {}
    for path in sorted(package.rglob("*.py"), key=lambda path: (_listens(path.parent.name), path)):
        text = path.read_text(encoding="utf-8")
        if _EVENT.search(text) is None:
            continue
        place = path.relative_to(package).parts
        room = place[1] if place[0] == "components" else place[0]
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and _EVENT.fullmatch(node.value):
                found.setdefault(node.value, room)
    return dict(sorted(found.items()))


def sentences(kind: type) -> Iterator[tuple[str, str]]:
    """Yield each field of a class and the string that stands below it."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef))
    for field, text in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            yield field.target.id, " ".join(str(ast.literal_eval(text.value)).split())


def _page() -> Iterator[str]:
    for title, kind in (("Request lines", RequestLine), ("Other lines", LogLine)):
        yield f"### {title}"
        yield ""
        yield f"{inspect.getdoc(kind)} Fields that have nothing to say are left out."
        yield ""
        yield from _table(("field", "what it says"), ((f"`{name}`", text) for name, text in sentences(kind)))
    yield "### Security events"
    yield ""
    yield from _table(("event", "when"), ((f"`{name}`", text) for name, text in SECURITY_EVENTS.items()))
    yield "### Other events"
    yield ""
    yield from _table(("event", "from"), ((f"`{name}`", room) for name, room in events().items()))


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    yield from ("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
    yield ""


def _listens(room: str) -> bool:
    """Tell whether a room names the events of others."""
    return room == "alerts"


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        write(Path(argument))
