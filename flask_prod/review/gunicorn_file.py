"""What gunicorn is told besides our settings, read without running anything: a check must have no effects."""

from __future__ import annotations

import ast
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAME = "gunicorn.conf.py"
"""What gunicorn reads by itself in the folder where it is started."""

_OPTIONS = {"-w": "workers", "-k": "worker_class", "-t": "timeout", "-b": "bind"}


@dataclass(frozen=True)
class GunicornFile:
    """The settings that are written as plain values; `ours` tells whether the kit's hooks are in it."""

    path: Path | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    ours: bool = True
    problem: str = ""

    @classmethod
    def read(cls, folder: Path, environ: Mapping[str, str]) -> GunicornFile:
        """Read gunicorn.conf.py of *folder*, and GUNICORN_CMD_ARGS, which wins."""
        options = dict(_options(environ.get("GUNICORN_CMD_ARGS", "")))
        path = folder / NAME
        if not path.is_file():
            return cls(None, options)
        try:
            text = path.read_text(encoding="utf-8")
            found = dict(_assignments(ast.parse(text)))
        except (OSError, SyntaxError, ValueError) as error:
            return cls(path, options, problem=type(error).__name__)
        return cls(path, {**found, **options}, "flask_prod" in text)


def _assignments(tree: ast.Module) -> Iterator[tuple[str, Any]]:
    for statement in tree.body:
        if not isinstance(statement, ast.Assign):
            continue
        try:
            value = ast.literal_eval(statement.value)
        except ValueError:
            continue  # computed: only gunicorn can tell
        yield from ((target.id, value) for target in statement.targets if isinstance(target, ast.Name))


def _options(line: str) -> Iterator[tuple[str, Any]]:
    try:
        words = shlex.split(line)
    except ValueError:
        return
    for number, word in enumerate(words):
        name, equals, value = word.partition("=")
        if not name.startswith("-"):
            continue
        if not equals:
            value = words[number + 1] if number + 1 < len(words) else ""
            if value.startswith("-"):
                value = ""
        key = _OPTIONS.get(name, name.lstrip("-").replace("-", "_"))
        yield key, int(value) if value.isdigit() else value or True
