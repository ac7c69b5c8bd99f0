"""The settings as a reader sees them: name, kind of value, default, and the sentence under the field.

The sentences live in the source of each section; the settings page and `flask prod settings` are made of them.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import msgspec

from .convert import _special, _without_none, expected
from .registry import BUILT_IN, load_component
from .settings import Section, ServiceSettings, key_names, show
from .values import DURATION, SIZE

_TIMES = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_SIZES = ((1024**3, "GB"), (1024**2, "MB"), (1024, "KB"))


@dataclass(frozen=True, slots=True)
class SettingDoc:
    """One setting: its key, the other names it goes by, what a value looks like, its default, and what it does."""

    key: str
    others: tuple[str, ...]
    kind: str
    default: str
    sentence: str


@dataclass(frozen=True, slots=True)
class SectionDoc:
    """The settings of one room; `sentence` is the first line of the section's docstring."""

    room: str
    sentence: str
    settings: tuple[SettingDoc, ...]
    library_keys: tuple[str, ...]


def sentences(section: type[Section]) -> dict[str, str]:
    """Return the text under each field of *section* by field name, inherited fields included.

    A field without one is missing from the answer, and so is everything where there is no source to read.
    """
    found: dict[str, str] = {}
    for kind in reversed(section.__mro__):
        if issubclass(kind, Section) and kind is not Section:
            found.update(_own_sentences(kind))
    return {name: found[name] for name in section.__struct_fields__ if name in found}


def describe(room: str, section: type[Section]) -> SectionDoc:
    """Return what a page says about *section*."""
    texts = sentences(section)
    rows = tuple(_setting(section, field, texts) for field in msgspec.structs.fields(section))
    return SectionDoc(room, (inspect.getdoc(section) or "").partition("\n")[0], rows, tuple(section.library_keys))


def describe_setting(section: type[Section], field: msgspec.structs.FieldInfo) -> SettingDoc:
    """Return what a page says about one setting of *section*."""
    return _setting(section, field, sentences(section))


def built_in_sections() -> tuple[SectionDoc, ...]:
    """Return the section of the service and of every built-in room, in the registry's order; imports them all."""
    kinds: dict[str, type[Section]] = {
        "service": ServiceSettings,
        **{name: load_component(name).settings for name in BUILT_IN},
    }
    found = (describe(room, kind) for room, kind in kinds.items())
    return tuple(section for section in found if section.settings)


def to_markdown(sections: Iterable[SectionDoc]) -> str:
    """Return the settings page."""
    return "\n".join(_page(sections))


def _own_sentences(kind: type[Section]) -> Iterator[tuple[str, str]]:
    """Yield field and text of one class: a string literal that follows an annotated name."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError):
        return
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    for field, text in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            literal = text.value
            if isinstance(literal, ast.Constant) and isinstance(literal.value, str):
                yield field.target.id, " ".join(literal.value.split())


def _setting(section: type[Section], field: msgspec.structs.FieldInfo, texts: dict[str, str]) -> SettingDoc:
    key, *others = key_names(section, field.name)
    return SettingDoc(key, tuple(others), expected(field.type), _default(field), texts.get(field.name, ""))


def _default(field: msgspec.structs.FieldInfo) -> str:
    """Return a default as a user would type it; empty when there is none."""
    return written(
        field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default, field.type
    )


def written(made: object, kind: object) -> str:
    """Return the value of a setting of this kind as a user would type it, without anything secret."""
    special = _special(_without_none(kind)[0])
    if special == DURATION and isinstance(made, int | float):
        return _duration(made)
    if special == SIZE and isinstance(made, int):
        return next((f"{made // unit}{name}" for unit, name in _SIZES if made and made % unit == 0), str(made))
    if isinstance(made, bool):
        return "true" if made else "false"
    return show(made)


def _duration(seconds: float) -> str:
    if 0 < seconds < 1:
        return f"{seconds * 1000:g}ms"
    unit, name = next(((unit, name) for unit, name in _TIMES if seconds and seconds % unit == 0), (1, "s"))
    return f"{seconds / unit:g}{name}"


def _page(sections: Iterable[SectionDoc]) -> Iterator[str]:
    yield "# Settings"
    yield ""
    yield "Made from the code by `flask prod settings --markdown`; a test compares the two."
    yield ""
    yield "A variable of the environment and a key of `app.config` have the same name. The first that is set wins:"
    yield "`app.config`, environment, `.env`, secret files, Vault, `config/ENVIRONMENT.toml`, default."
    yield "`flask prod config` shows each effective value and where it came from."
    for section in sections:
        yield ""
        yield f"## {section.room}"
        yield ""
        yield section.sentence
        yield ""
        yield "| setting | value | default | what it does |"
        yield "|---|---|---|---|"
        yield from (_row(setting) for setting in section.settings)
        if section.library_keys:
            yield ""
            keys = ", ".join(f"`{key}`" for key in section.library_keys)
            yield f"Keys of the library behind it, honoured as they are: {keys}."
    yield ""


def _row(setting: SettingDoc) -> str:
    names = f"`{setting.key}`" + "".join(f" or `{name}`" for name in setting.others)
    default = f"`{_cell(setting.default)}`" if setting.default else "none"
    return f"| {names} | {_cell(setting.kind)} | {default} | {_cell(setting.sentence)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
