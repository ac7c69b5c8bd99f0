from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flask_prod.core.errors import ConfigError
from flask_prod.core.sources import find_sources, parse_dotenv


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
