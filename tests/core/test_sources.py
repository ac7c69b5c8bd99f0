from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from flask_prod.core.errors import ConfigError
from flask_prod.core.registry import BUILT_IN, load_component
from flask_prod.core.settings import Section, ServiceSettings, Source, key_names, read_settings
from flask_prod.core.sources import find_sources, parse_dotenv, read_secret_files
from flask_prod.core.values import Secret


class Scrape(Section, frozen=True, kw_only=True):
    """A section with a secret."""

    prefix: ClassVar[str] = "METRICS_"

    token: Secret = Secret("")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder: no .env and no config/ of the developer."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def value(name: str, config: dict[str, Any] | None = None, /, **environ: str) -> Any:
    for source in find_sources(config or {}, Path("app"), {"ENVIRONMENT": "test", **environ}):
        if source.values.get(name) is not None:
            return source.values[name]
    return None


def test_dotenv() -> None:
    """Quotes, comments and `export` are understood; what is no assignment is skipped."""
    text = "# a comment\nexport A=1\nB='two words' \nC=\"x#y\"\nD=plain # comment\nnothing\nE=\n"

    assert parse_dotenv(text) == {"A": "1", "B": "two words", "C": "x#y", "D": "plain", "E": ""}


def test_order(folder: Path) -> None:
    """app.config wins over the environment, that over .env, secret files, the profile and its parents."""
    (folder / ".env").write_text("NAME=dotenv\n")
    (folder / "secrets").mkdir()
    (folder / "secrets" / "NAME").write_text("secret\n")
    (folder / "config").mkdir()
    (folder / "config" / "test.toml").write_text('inherits = "base"\nNAME = "profile"\n')
    (folder / "config" / "base.toml").write_text('NAME = "base"\nONLY_BASE = 1\n')
    secrets = {"SECRETS_DIR": str(folder / "secrets")}

    assert value("NAME", {"NAME": "config"}, NAME="environment", **secrets) == "config"
    assert value("NAME", NAME="environment", **secrets) == "environment"
    assert value("NAME", **secrets) == "dotenv"
    (folder / ".env").unlink()
    assert value("NAME", **secrets) == "secret"
    assert value("NAME") == "profile"
    assert value("ONLY_BASE") == 1
    assert value("SECURITY_FORCE_HTTPS") is False


def test_secret_by_name_file(folder: Path) -> None:
    """NAME_FILE gives the content of the file without its line end."""
    (folder / "token").write_text("s3cret\n")

    assert value("METRICS_TOKEN", METRICS_TOKEN_FILE=str(folder / "token")) == "s3cret"


def test_files_of_others(folder: Path) -> None:
    """A file that is no text keeps nobody from starting; the setting that should be in it says so."""
    (folder / "keystore").write_bytes(b"\xff\xfe\x00")
    (folder / "TLS_CERT").write_bytes(b"\xff\xfe\x00")
    (folder / "METRICS_TOKEN").write_bytes(b"\xff\xfe\x00")
    lying = str(folder / "METRICS_TOKEN")
    places = {"SECRETS_DIR": str(folder), "OTHER_KEYSTORE_FILE": str(folder / "keystore")}

    assert value("METRICS_TOKEN", **places) is None
    assert value("TLS_CERT_FILE", **places) is None
    for named in (places, {"METRICS_TOKEN_FILE": lying}):
        with pytest.raises(ConfigError, match=r"METRICS_TOKEN_FILE names .*METRICS_TOKEN, which cannot be read"):
            read_settings([Scrape], find_sources({}, folder, named))


def test_secret_of_another_user(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret's file that is not ours to read is named, not taken for one that is missing; acted, as below."""
    (folder / "METRICS_TOKEN").write_text("s3cret")

    def refuse(path: Path, **_: Any) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", refuse)

    files = Source("secret file", read_secret_files([Source("environment", {"SECRETS_DIR": str(folder)})]))

    with pytest.raises(ConfigError, match="METRICS_TOKEN, which cannot be read"):
        read_settings([Scrape], [files])


def test_secrets_that_cannot_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of secrets that this user may not read is named; acted, since root may read everything."""

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)

    with pytest.raises(ConfigError, match=r"folder of secrets, cannot be read: Permission denied.*SECRETS_DIR"):
        value("A", SECRETS_DIR=str(folder))


def test_forgotten_environment_is_production() -> None:
    """Without ENVIRONMENT the strictest profile is read."""
    names = [source.name for source in find_sources({}, Path("app"), {})]

    assert names[-1] == "profile production of flask-prod"


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "ENVIRONMENT is 'test2', but there is no config/test2.toml"),
        ({"test2": 'inherits = "gone"'}, "inherits 'gone', but there is no config/gone.toml"),
        ({"test2": 'inherits = "test2"'}, "inherits from itself"),
        ({"test2": "A = = 1"}, "is not valid TOML"),
    ],
)
def test_profile_that_cannot_be_used(folder: Path, files: dict[str, str], sentence: str) -> None:
    """A profile that is missing, circular or broken is named in the error."""
    (folder / "config").mkdir()
    for name, text in files.items():
        (folder / "config" / f"{name}.toml").write_text(text)

    with pytest.raises(ConfigError, match=sentence):
        find_sources({}, Path("app"), {"ENVIRONMENT": "test2"})


def profile(folder: Path, text: str, name: str = "test") -> None:
    (folder / "config").mkdir(exist_ok=True)
    (folder / "config" / f"{name}.toml").write_text(text)


def test_variables_in_a_profile(folder: Path) -> None:
    """Variables come from environment, .env and secret files, in this order, and never from app.config."""
    profile(folder, 'REDIS_URL = "redis://:${PASSWORD}@${HOST}:${PORT:-6379}/0"\n[TABLE]\nname = "${HOST}"\n')
    (folder / ".env").write_text("PASSWORD=never\nHOST=cache\n")
    (folder / "secrets").mkdir()
    (folder / "secrets" / "PASSWORD").write_text("never either")
    environ = {"SECRETS_DIR": str(folder / "secrets"), "PASSWORD": "a${HOST}b"}

    assert value("REDIS_URL", {"HOST": "config"}, **environ) == "redis://:a${HOST}b@cache:6379/0"
    assert value("TABLE", **environ) == {"name": "cache"}
    environ.pop("PASSWORD")
    (folder / ".env").write_text("HOST=cache\n")
    assert value("REDIS_URL", **environ) == "redis://:never either@cache:6379/0"


def test_secrets_are_never_expanded(folder: Path) -> None:
    """Neither environment nor .env nor secret files are templates: a secret may hold `${`."""
    (folder / ".env").write_text("B='${HOME}'\n")
    (folder / "secrets").mkdir()
    (folder / "secrets" / "C").write_text("${HOME}")
    environ = {"A": "${HOME}", "SECRETS_DIR": str(folder / "secrets")}

    assert [value(name, **environ) for name in "ABC"] == ["${HOME}"] * 3


def test_missing_variables(folder: Path) -> None:
    """Each missing variable is named with its key and file, all of them at once, and no value."""
    profile(folder, 'inherits = "base"\nA = "x ${ONE}"\nB = "${TWO:?see the wiki}"\nC = "${FOUND}${"\n')
    profile(folder, 'A = "${THREE}"\nD = "${FOUR}"\n', "base")

    with pytest.raises(ConfigError) as caught:
        value("A", FOUND="hunter2", D="set above")

    assert caught.value.problems == (
        "A in config/test.toml needs the variable ONE, which is not set.",
        "B in config/test.toml needs the variable TWO, which is not set: see the wiki.",
        "C in config/test.toml has a ${ that is no variable: there are ${NAME}, ${NAME:-default}, "
        "${NAME:?message} and $${.",
        "A in config/base.toml needs the variable THREE, which is not set.",
    )
    assert "hunter2" not in str(caught.value)


def test_inheriting_what_is_shipped(folder: Path) -> None:
    """A profile of one's own may inherit one that flask-prod ships, under another name too."""
    profile(folder, 'inherits = "test"\nNAME = "qa"\n', "qa")
    names = [source.name for source in find_sources({}, Path("app"), {"ENVIRONMENT": "qa"})]

    assert names[-2:] == ["config/qa.toml", "profile test of flask-prod"]


def test_inherits_must_be_a_name(folder: Path) -> None:
    """`inherits = 3` is told in words."""
    profile(folder, "inherits = 3")

    with pytest.raises(ConfigError, match=r"inherits in config/test\.toml must be the name of a profile"):
        value("A")


@pytest.mark.parametrize("name", ["development", "test", "staging", "production"])
def test_shipped_profiles(name: str) -> None:
    """Each shipped profile sets only settings that exist, to values that they may have."""
    sections: list[type[Section]] = [ServiceSettings, *(load_component(room).settings for room in BUILT_IN)]
    sources = [
        source for source in find_sources({}, Path("app"), {"ENVIRONMENT": name}) if "profile" in source.name
    ]
    known = {key for kind in sections for field in kind.__struct_fields__ for key in key_names(kind, field)}

    assert [source.name for source in sources] == [f"profile {name} of flask-prod"]
    assert not set(sources[0].values) - known
    read_settings(sections, sources)
