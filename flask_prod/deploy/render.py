"""Templates and a plan become files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path, PurePosixPath

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .plan import Plan
from .targets import Target

TEMPLATES = Path(__file__).parent / "templates"
NAME = "__name__"
"""In the name of a template: the name of the service."""


@dataclass(frozen=True, slots=True)
class File:
    """One rendered file: its path below the folder it belongs to, and its text."""

    path: PurePosixPath
    text: str

    @property
    def mode(self) -> int | None:
        """The permissions of a script; None for what is only read."""
        return 0o755 if self.text.startswith("#!") else None


def render(target: Target, plan: Plan) -> Iterator[File]:
    """Yield the files of *target*, the paths as below its own folder; those of `places` are below the project."""
    environment = _environment()
    folder = TEMPLATES / target.name
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        name = path.relative_to(TEMPLATES).as_posix()
        text = environment.get_template(name).render(plan=plan, target=target)
        if text.strip():  # a template that has nothing to say for this application makes no file
            yield File(_place(PurePosixPath(path.relative_to(folder).as_posix()), plan), text)
    for place, text in _made(target, plan).items():
        yield File(PurePosixPath(place), text)


def _place(path: PurePosixPath, plan: Plan) -> PurePosixPath:
    return PurePosixPath(str(path).replace(NAME, plan.name))


def _made(target: Target, plan: Plan) -> Mapping[str, str]:
    """Return what code makes, where a template would be the wrong tool: path to text."""
    if not target.maker:
        return {}
    module, _, attribute = target.maker.partition(":")
    made: Mapping[str, str] = getattr(import_module(module), attribute)(plan)
    return made


def _environment() -> Environment:
    """Return Jinja with brackets that no other language of these files uses: Helm and workflows have braces."""
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        variable_start_string="[=",
        variable_end_string="=]",
        block_start_string="[%",
        block_end_string="%]",
        comment_start_string="[#",
        comment_end_string="#]",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701  # no web page is made here
    )
