"""Everything about one setting of an application: its value, who said so, who was not heard, what it is for."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from .convert import convert
from .settings import Section, Settings, Source, key_names
from .settings_doc import SettingDoc, describe_setting, written


@dataclass(frozen=True, slots=True)
class Said:
    """What one source says of a setting, under which of its names; secrets are fingerprints."""

    origin: str
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """One setting of one application; `said` begins with what is in force, unless that is the default."""

    doc: SettingDoc
    section: type[Section]
    value: str
    origin: str
    said: tuple[Said, ...]
    live: bool


def explain(name: str, sections: Iterable[type[Section]], settings: Settings) -> Explanation | None:
    """Return what is known of the setting *name*, by any of its names; None when there is no such setting."""
    for section in sections:
        for field in msgspec.structs.fields(section):
            if name in key_names(section, field.name):
                return _explanation(section, field, settings)
    return None


def nearest(name: str, sections: Iterable[type[Section]]) -> str | None:
    """Return the setting whose name is most like *name*; None when none is."""
    known = [key for kind in sections for field in kind.__struct_fields__ for key in key_names(kind, field)]
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.6)), None)


def _explanation(section: type[Section], field: msgspec.structs.FieldInfo, settings: Settings) -> Explanation:
    doc = describe_setting(section, field)
    said = tuple(_said(section, field, settings.sources, settings.hidden))
    value, origin = (said[0].value, said[0].origin) if said else (doc.default, "default")
    return Explanation(doc, section, value, origin, said, field.name in section.live)


def _said(
    section: type[Section],
    field: msgspec.structs.FieldInfo,
    sources: Sequence[Source],
    hidden: Callable[[str], str],
) -> Iterator[Said]:
    """Yield what each source says, the winning one first."""
    for source in sources:
        for name in key_names(section, field.name):
            raw = source.values.get(name)
            if raw is None:
                continue
            try:
                value = hidden(written(convert(raw, field.type), field.type))
            except ValueError:
                value = "what is no such value"
            yield Said(source.name, name, value)
