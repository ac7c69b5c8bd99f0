"""From environment, app.config, files and profiles to one frozen typed section per room.

All problems are found before any is reported, and each names the key as the user typed it.
"""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Annotated, Any, ClassVar, TypeVar, cast

import msgspec
from msgspec import Meta

from .convert import convert, expected, holds_secrets
from .errors import ConfigError
from .redaction import forms_of, hide, is_random, is_sensitive, redact_text
from .values import Duration, Secret, Size, secret_texts

SectionT = TypeVar("SectionT", bound="Section")

_UNSHOWN = "what it is now"

_fields = cache(msgspec.structs.fields)
"""It evaluates all annotations of a section each time."""

_ORCHESTRATOR = re.compile(r"_(SERVICE_(HOST|PORT\w*)|PORT(_\d+_(TCP|UDP)\w*)?)$")
"""Variables that Kubernetes invents for each service of a namespace: REDIS_PORT_6379_TCP."""


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one room; a sentence under each field says what it does.

    The key of a field is `prefix` and the field's name in capitals, unless `keys` lists its names, the one to
    show first.
    """

    prefix: ClassVar[str] = ""
    keys: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    library_keys: ClassVar[tuple[str, ...]] = ()
    """Keys of the library behind the room, honoured as they are; one that ends in `*` covers all that follow."""

    live: ClassVar[tuple[str, ...]] = ()
    """The fields that a running service takes over when they change; a change of any other waits for a start."""

    def problems(self) -> Iterator[str]:
        """Yield what is wrong between fields that are each valid alone."""
        return iter(())


class ServiceSettings(Section, frozen=True, kw_only=True):
    """Who this service is, and whom it trusts."""

    keys: ClassVar[Mapping[str, tuple[str, ...]]] = {"service_version": ("SERVICE_VERSION", "APP_VERSION")}

    environment: str = "production"
    """Where this process runs; chooses the profile. A forgotten variable means production, the strictest."""

    service_name: str = ""
    """The name in logs, metrics, traces and in front of every Redis key; the Flask application's name if empty."""

    service_version: str = "0"
    """The version in logs, traces and error reports."""

    secret_key: Secret = Secret("")
    """Signs sessions and tokens; given to Flask where the application sets none."""

    secret_key_fallbacks: tuple[Secret, ...] = ()
    """Earlier values of SECRET_KEY: what they signed is still accepted; see docs/secrets.md."""

    port: Annotated[int, Meta(ge=1, le=65535)] = 8000
    """The port that `flask prod up` and gunicorn.conf.py listen on."""

    trusted_proxies: Annotated[int, Meta(ge=0, le=16)] = 0
    """How many proxies stand in front; 0 ignores every forwarded header."""

    allowed_hosts: tuple[str, ...] = ()
    """Host names this service answers to, `*.example.com` for subdomains; empty answers to any."""

    max_content_length: Size = 16 * 1024**2
    """The largest request body in bytes; more is answered with 413."""

    drain_seconds: Duration = 5.0
    """How long requests are still taken after SIGTERM, while readiness already says no; 0 stops at once."""

    shutdown_seconds: Duration = 20.0
    """How long requests and jobs under way may take to end at a stop; orchestrators kill after 30 s."""

    ops_token: Secret = Secret("")
    """Whoever sends it as `Authorization: Bearer` may read the operations pages; without one, nobody does."""

    reload_seconds: Duration = 0.5
    """How often it is looked whether files of settings have changed; 0 never looks. See docs/reload.md."""

    run_dir: str = ""
    """Where the processes of one host leave word for one another; empty makes one in the temporary directory."""

    components: tuple[str, ...] = ()
    """Third-party components to switch on, by their entry point's name."""

    ignore_settings: tuple[str, ...] = ()
    """Names that look like misspelt settings and are not."""

    @property
    def namespace(self) -> str:
        """What stands in front of every Redis key: two services or environments never share one."""
        return f"{self.service_name}:{self.environment}"

    @property
    def production(self) -> bool:
        """True unless this is a development or test process."""
        return self.environment not in ("development", "test")


@dataclass(frozen=True, slots=True)
class Source:
    """Settings from one place; `name` is what `flask prod config` shows."""

    name: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """One effective setting: its key as typed, its value, and where that came from."""

    key: str
    value: object
    origin: str

    @property
    def shown(self) -> str:
        """Return the value as text without anything secret."""
        return show(self.value)


def show(value: object) -> str:
    """Return *value* as text; secrets appear as fingerprints, addresses without passwords."""
    if isinstance(value, Secret):
        return value.shown() if value else ""
    if isinstance(value, tuple):
        return ", ".join(show(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={show(item)}" for key, item in value.items())
    return "" if value is None else redact_text(str(value))


class Settings:
    """The validated sections of one application, the origin of each value, and the sources they were read from."""

    def __init__(
        self, sections: Mapping[type[Section], Section], rows: Sequence[Setting], sources: Sequence[Source] = ()
    ) -> None:
        self._sections = sections
        self.rows = tuple(rows)
        self.sources = tuple(sources)

    @property
    def kinds(self) -> tuple[type[Section], ...]:
        """The classes of all sections, in the order of installation."""
        return tuple(self._sections)

    def shown(self, row: Setting) -> str:
        """Return a row's value as text without anything secret, also where a secret stands in another setting."""
        return self.hidden(row.shown)

    def hidden(self, text: str) -> str:
        """Return *text* with every secret of these settings starred out."""
        return hide(text, self._secret_forms)

    @cached_property
    def _secret_forms(self) -> tuple[str, ...]:
        return forms_of(text for row in self.rows for text in secret_texts(row.value))

    def section(self, kind: type[SectionT]) -> SectionT:
        """Return the section of this kind."""
        return cast(SectionT, self._sections[kind])


def key_names(section: type[Section], field: str) -> tuple[str, ...]:
    """Return the names a field goes by, the one to show first."""
    return section.keys.get(field) or (section.prefix + field.upper(),)


def read_settings(sections: Iterable[type[Section]], sources: Sequence[Source]) -> Settings:
    """Build every section from the first source that knows each key; ConfigError lists all problems."""
    kinds = tuple(dict.fromkeys(sections))
    built: dict[type[Section], Section] = {}
    rows: list[Setting] = []
    problems: list[str] = []

    for kind in kinds:
        reader = _SectionReader(kind, sources)
        section = reader.read()
        rows += reader.rows
        problems += reader.problems
        if section is not None:
            built[kind] = section
            problems += section.problems()

    problems += misspelt(kinds, sources)
    if problems:
        # A room may repeat a value that is no secret in itself and holds one all the same.
        forms = forms_of(text for row in rows for text in secret_texts(row.value))
        raise ConfigError([hide(problem, forms) for problem in problems])
    return Settings(built, rows, sources)


def peek(sources: Sequence[Source], kind: type[Section], field: str) -> Any:
    """Return one field before its section is read; what is wrong with it is left for `read_settings` to report."""
    info = next(info for info in _fields(kind) if info.name == field)
    return _SectionReader(kind, sources).read_field(info).value


def misspelt(sections: Iterable[type[Section]], sources: Sequence[Source]) -> Iterator[str]:
    """Yield one sentence for each name that is nearly, but not quite, a setting."""
    known: set[str] = set()
    spared = {"FLASK_APP"}
    for kind in sections:
        known.update(name for field in kind.__struct_fields__ for name in key_names(kind, field))
        spared.update(kind.library_keys)
    for source in sources:
        spared.update(_as_names(source.values.get("IGNORE_SETTINGS")))

    alike: defaultdict[str, list[str]] = defaultdict(list)
    for name in known:
        alike[name[:3]].append(name)
    seen: set[str] = set()
    for source in sources:
        for name in source.values:
            if name in seen or name in known or _is_spared(name, spared):
                continue
            seen.add(name)
            near = _nearest(name, alike) if name.removesuffix("_FILE") not in known else None
            if near:
                yield f"{name} is not a setting; did you mean {near}?"


class _SectionReader:
    """Reads one section; keeps what it found and what was wrong."""

    def __init__(self, kind: type[Section], sources: Sequence[Source]) -> None:
        self.kind = kind
        self.sources = sources
        self.rows: list[Setting] = []
        self.problems: list[str] = []

    def read(self) -> Section | None:
        """Return the section, None when a field of it is wrong."""
        values = {}
        for field in _fields(self.kind):
            row = self.read_field(field)
            values[field.name] = row.value
            self.rows.append(row)
        return None if self.problems else self.kind(**values)

    def read_field(self, field: msgspec.structs.FieldInfo) -> Setting:
        """Return one field from the first source that has it, its default if that value is wrong."""
        names = key_names(self.kind, field.name)
        for source in self.sources:
            for name in names:
                raw = source.values.get(name)
                if raw is None:
                    continue
                try:
                    return Setting(name, convert(raw, field.type), source.name)
                except ValueError:
                    self.problems.append(_sentence(name, field.type, raw, source.name))
                    return Setting(name, _default(field), "default")
        self._miss_file(names)
        return Setting(names[0], _default(field), "default")

    def _miss_file(self, names: Sequence[str]) -> None:
        """Report a NAME_FILE that gave no value: the file is not there, or may not be read."""
        for name in names:
            for source in self.sources:
                path = source.values.get(f"{name}_FILE")
                if path:
                    self.problems.append(f"{name}_FILE names {_shown_path(str(path))} ({source.name}).")
                    return


def _default(field: msgspec.structs.FieldInfo) -> object:
    return field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default


def _sentence(name: str, kind: Any, raw: object, origin: str) -> str:
    shown = _UNSHOWN if holds_secrets(kind) or is_sensitive(name) else _shown_raw(raw)
    return f"{name} must be {expected(kind)}, not {shown} ({origin})."


def _shown_raw(raw: object) -> str:
    """Return a wrong value as it was typed, unless it looks like a secret that got into the wrong place."""
    text = repr(raw)
    if redact_text(text) != text or is_random(text):
        return _UNSHOWN
    return text if len(text) <= 60 else text[:57] + "..."


def _shown_path(path: str) -> str:
    """Say what is wrong with the path of a secret's file; it may be the secret itself, in the wrong place."""
    plain = ("/" in path or "." in path) and not is_random(path.replace("/", " ")) and path.isprintable()
    return f"{path}, which cannot be read" if plain and redact_text(path) == path else "no file that can be read"


def _as_names(value: object) -> Iterable[str]:
    if isinstance(value, str):
        return (name.strip() for name in value.split(","))
    return tuple(value) if isinstance(value, list | tuple) else ()


def _is_spared(name: str, spared: set[str]) -> bool:
    if name in spared or not name.isupper() or _ORCHESTRATOR.search(name):
        return True
    base = name.removesuffix("_FILE")
    return any(name.startswith(one[:-1]) for one in spared if one.endswith("*")) or base in spared


def _nearest(name: str, alike: Mapping[str, list[str]]) -> str | None:
    return next(iter(difflib.get_close_matches(name, alike.get(name[:3], []), n=1, cutoff=0.88)), None)
