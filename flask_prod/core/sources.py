"""The places settings come from, in the order in which they win.

app.config > environment > .env > secret files > Vault > profile file > profile shipped with flask-prod > default
Profile files may hold variables, `${NAME}`; nothing else is ever expanded.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from .errors import ConfigError
from .settings import Source
from .templates import Missing, expand

SECRETS_DIR = "/run/secrets"
"""Where Docker and Kubernetes mount secrets by default; SECRETS_DIR names another directory."""

REMOTE = "flask_prod.server.vault:open_vault"
"""What reads Vault, by name: the core imports no library of it."""

SHIPPED = Path(__file__).parent.parent / "profiles"
_ENDLESS = 8
"""More profiles than this inheriting from one another is a mistake, most likely a circle."""


class Remote(Protocol):
    """A place of secrets outside of this host, which is asked anew at each reload."""

    name: str

    def read(self) -> Mapping[str, Any]:
        """Return the settings that lie there; ConfigError when it does not give them."""

    def tend(self, changed: Callable[[Mapping[str, Any]], None]) -> None:
        """Keep the way open, and tell of values that are read again now and then; returns at once."""


def read_remote(sources: Sequence[Source]) -> Source | None:
    """Read what lies in Vault, where VAULT_PATH is set; None where it is not."""
    remote = open_remote(sources)
    return None if remote is None else Source(remote.name, remote.read())


def open_remote(sources: Sequence[Source]) -> Remote | None:
    """Return Vault where VAULT_PATH is set: nothing of it is imported elsewhere."""
    if not any(source.values.get("VAULT_PATH") for source in sources):
        return None
    module, _, attribute = REMOTE.partition(":")
    found: Remote = getattr(importlib.import_module(module), attribute)(sources)
    return found


def find_sources(
    config: Mapping[str, Any],
    root: Path,
    environ: Mapping[str, str] = os.environ,
    remote: Callable[[Sequence[Source]], Source | None] | None = read_remote,
) -> list[Source]:
    """Return every source for an application whose package lies in *root*, the winning one first.

    ConfigError names a file that cannot be read or understood, and a profile that does not exist. *remote* reads
    what lies in Vault; None asks nobody, for who needs no secret.
    """
    sources = [Source("app.config", config), Source("environment", environ)]
    dotenv = Path(environ.get("ENV_FILE") or ".env")
    if dotenv.is_file():
        sources.append(Source(str(dotenv), parse_dotenv(_text(dotenv))))
    sources.append(Source("secret file", read_secret_files(sources)))

    name = next((str(s.values["ENVIRONMENT"]) for s in sources if s.values.get("ENVIRONMENT")), "production")
    profiles = list(read_profiles(name, _profile_folders(environ, root)))
    found = remote([*sources, *_about_vault(profiles, sources)]) if remote is not None else None
    if found is not None:
        sources.append(found)
    return [*sources, *expand_profiles(profiles, sources, strict=remote is not None)]


def _about_vault(profiles: Sequence[Source], above: Sequence[Source]) -> list[Source]:
    """Return what profiles say of Vault itself, which must be known before it can be asked."""
    ours = [Source(p.name, {k: v for k, v in p.values.items() if k.startswith("VAULT_")}) for p in profiles]
    return expand_profiles(ours, above)


class Finder:
    """Finds the sources of one application, once and again; app.config counts as it was at the start.

    `stamp` tells the files of then from changed ones: `.env`, profiles, secret files and what they link to.
    """

    def __init__(self, config: Mapping[str, Any], root: Path) -> None:
        self._config = dict(config)
        self._root = root
        self._folders: tuple[str, ...] = ()
        self._files: tuple[str, ...] = ()
        self._remote: Remote | None = None
        self._remote_values: Mapping[str, Any] = {}
        self._turns = 0
        self.stamp = ""

    def find(self) -> list[Source]:
        """Return every source, the winning one first; ConfigError as `find_sources`."""
        # The stamp first: what changes while it is read is then seen as a change.
        self._files, self._folders = _watched(self._config, self._root)
        self.stamp = self.look()
        return find_sources(self._config, self._root, remote=self._ask)

    def tend(self) -> None:
        """Keep the way to Vault open, and look there now and then; for the process that leads."""
        if self._remote is not None:
            self._remote.tend(self._note)

    def _ask(self, sources: Sequence[Source]) -> Source | None:
        if self._remote is None:
            self._remote = open_remote(sources)
        if self._remote is None:
            return None
        self._remote_values = self._remote.read()
        return Source(self._remote.name, self._remote_values)

    def _note(self, values: Mapping[str, Any]) -> None:
        if values != self._remote_values:
            self._remote_values = values
            self._turns += 1  # which makes another stamp, as a file that has changed does

    def look(self) -> str:
        """Return the stamp of the files as they are now."""
        found: list[object] = [self._turns, *(_look(path) for path in self._files)]
        for folder in self._folders:
            try:
                found += [_look(os.path.join(folder, name)) for name in sorted(os.listdir(folder))]
            except OSError:
                found.append((folder, 0, 0, 0))
        return hashlib.sha256(repr(found).encode()).hexdigest()

    def is_fixed(self, names: Iterable[str]) -> bool:
        """Tell whether app.config or the environment says what this setting is, whatever files say."""
        places = (self._config, os.environ)
        return any(place.get(name) is not None for name in names for place in places)


def parse_dotenv(text: str) -> dict[str, str]:
    """Read NAME=value lines; quotes are taken off, `#` starts a comment, `export` is ignored."""
    values = {}
    for raw in text.splitlines():
        line = raw.strip().removeprefix("export ")
        name, equals, value = line.partition("=")
        if not equals or line.startswith("#"):
            continue
        value = value.strip()
        if value[:1] in ("'", '"') and value.endswith(value[0]) and len(value) > 1:
            value = value[1:-1]
        else:
            value = value.split(" #", 1)[0].rstrip()
        values[name.strip()] = value
    return values


def read_secret_files(sources: list[Source]) -> dict[str, str]:
    """Return what NAME_FILE variables point to, and the files of the secrets directory by their names.

    A file there that is no text, or is not ours to read, becomes a NAME_FILE that gives nothing: whoever needs
    NAME reports it, and nobody else. Keystores and certificates of other software lie there as well.
    """
    folder = next((str(s.values["SECRETS_DIR"]) for s in sources if s.values.get("SECRETS_DIR")), SECRETS_DIR)
    values = {}
    if os.path.isdir(folder):
        for path in _inside(folder):
            if path.name.startswith(".") or not path.is_file():
                continue
            name, found = path.name.upper(), _content(path)
            if found is not None:
                values[name] = found
            elif f"{name}_FILE" not in _NOT_A_SECRET:
                values[f"{name}_FILE"] = str(path)
    for source in reversed(sources):
        for name, path in source.values.items():
            if name.endswith("_FILE") and name not in _NOT_A_SECRET and isinstance(path, str) and path:
                values.update(_secret(name, Path(path)))
    return values


def _inside(folder: str) -> list[Path]:
    try:
        return list(Path(folder).iterdir())
    except OSError as error:
        raise ConfigError(
            [f"{folder}, the folder of secrets, cannot be read: {error.strerror}. Let the service's user read it, "
             "or name another one by SECRETS_DIR."]
        ) from error  # fmt: skip


def read_profiles(name: str, folders: list[Path]) -> Iterator[Source]:
    """Yield the profile *name* and those it inherits from, then what flask-prod ships for the first it has."""
    own, names = _chain(name, folders)
    yield from own
    shipped = next((one for one in names if _shipped(one)), None)
    if shipped is not None:
        yield Source(f"profile {shipped} of flask-prod", _toml(SHIPPED / f"{shipped}.toml"))
    elif not own:
        raise ConfigError(
            [f"ENVIRONMENT is {name!r}, but there is no config/{name}.toml; write one, or use development, test, "
             "staging or production."]
        )  # fmt: skip


def expand_profiles(profiles: Sequence[Source], above: Sequence[Source], strict: bool = True) -> list[Source]:
    """Return *profiles* with the variables in them filled in, from environment, `.env` and secret files.

    ConfigError names file, key and variable for each that is missing, unless a source above sets the key anyway.
    """
    places = [source.values for source in above if source.name != "app.config"]
    taken = {key for source in above for key, value in source.values.items() if value is not None}
    problems: list[str] = []
    expanded = []
    for profile in profiles:
        values = {}
        for key, value in profile.values.items():
            try:
                values[key] = expand(value, places)
            except Missing as error:
                if strict and key not in taken:
                    problems.append(f"{key} in {profile.name} {error}.")
        taken.update(values)
        expanded.append(Source(profile.name, values))
    if problems:
        raise ConfigError(problems)
    return expanded


_NOT_A_SECRET = frozenset({"ENV_FILE", "TLS_CERT_FILE", "TLS_KEY_FILE"})


def _secret(name: str, path: Path) -> dict[str, str]:
    # Other software has variables that end in _FILE too (SSL_CERT_FILE): one that points nowhere, or to what is no
    # text, is reported only if a section asks for its value, as a missing setting would be.
    found = _content(path) if path.is_file() else None
    return {} if found is None else {name.removesuffix("_FILE"): found}


def _content(path: Path) -> str | None:
    """Return the text of a secret's file without its line end; None where it cannot be had."""
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError):
        return None


def _chain(name: str, folders: list[Path]) -> tuple[list[Source], list[str]]:
    """Return the files of a profile and of those it inherits from, and the names on the way."""
    found: list[Source] = []
    names: list[str] = []
    wanted: str | None = name
    while wanted and len(found) < _ENDLESS:
        names.append(wanted)
        path = next((f / f"{wanted}.toml" for f in folders if (f / f"{wanted}.toml").is_file()), None)
        if path is None:
            if found and not _shipped(wanted):
                raise ConfigError([f"{found[-1].name} inherits {wanted!r}, but there is no config/{wanted}.toml."])
            return found, names
        values = _toml(path)
        wanted = _inherited(values, path)
        found.append(Source(f"config/{path.name}", values))
    if wanted:
        raise ConfigError([f"config/{name}.toml inherits from itself by way of {wanted!r}."])
    return found, names


def _inherited(values: dict[str, Any], path: Path) -> str | None:
    name = values.pop("inherits", None)
    if name is not None and not isinstance(name, str):
        raise ConfigError([f'inherits in config/{path.name} must be the name of a profile: inherits = "base".'])
    return name


def _shipped(name: str) -> bool:
    return (SHIPPED / f"{name}.toml").is_file()


def _profile_folders(environ: Mapping[str, str], root: Path) -> list[Path]:
    if environ.get("CONFIG_DIR"):
        return [Path(environ["CONFIG_DIR"])]
    return list(dict.fromkeys((Path.cwd() / "config", root.parent / "config", root / "config")))


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(_text(path))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{path} is not valid TOML: {error}"]) from error


def _watched(config: Mapping[str, Any], root: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the files and the folders that settings come from."""
    environ = os.environ
    places: tuple[Mapping[str, Any], ...] = (config, environ)
    secrets = next((str(place["SECRETS_DIR"]) for place in places if place.get("SECRETS_DIR")), SECRETS_DIR)
    files = [environ.get("ENV_FILE") or ".env"]
    files += [
        path
        for place in places
        for name, path in place.items()
        if name.endswith("_FILE") and name not in _NOT_A_SECRET and isinstance(path, str) and path
    ]
    folders = [secrets, *(str(folder) for folder in _profile_folders(environ, root))]
    return tuple(os.path.abspath(file) for file in files), tuple(os.path.abspath(folder) for folder in folders)


def _look(path: str) -> tuple[str, int, int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return (path, 0, 0, 0)
    return (path, found.st_mtime_ns, found.st_size, found.st_ino)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path} cannot be read: {error}"]) from error
