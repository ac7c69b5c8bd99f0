"""What the shop itself can be told: read from the same places, and checked the same way, as the kit's settings."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
from flask import Flask, current_app

from flask_prod import ConfigError
from flask_prod.core.settings import Section, read_settings
from flask_prod.core.sources import find_sources
from flask_prod.core.values import Secret, SecretUrl

SHORTEST_SECRET = 32
"""Characters; a key for HMAC-SHA256 should not be shorter than its hash (RFC 7518, section 3.2)."""

_MAKE_ONE = "make one with: python -c 'import secrets; print(secrets.token_hex(32))'"


class ShopSettings(Section, frozen=True, kw_only=True):
    """The shop's own settings; each key is the name in capitals."""

    environment: str = "production"
    """The same ENVIRONMENT that the kit reads: secrets may be missing in development and test only."""

    data_dir: str = ""
    """Where the SQLite file, the mails and development's secrets lie; `instance` beside the package if empty."""

    secret_key: Secret = Secret("")
    """Signs the session cookie of the storefront."""

    jwt_secret_key: Secret = Secret("")
    """Signs the tokens of the API."""

    jwt_secret_key_fallbacks: tuple[Secret, ...] = ()
    """Earlier values of JWT_SECRET_KEY: tokens that they signed are good until they expire."""

    mail_url: SecretUrl = SecretUrl("")
    """Where mail goes, such as `smtp://user:password@host:587`; empty writes it to the mail folder."""

    mail_dir: str = ""
    """The mail folder; `mails` in the data directory if empty."""

    mail_from: str = "Harbour Goods <shop@example.com>"
    """The sender of every mail."""

    report_to: str = ""
    """Who gets the nightly sales report; the sender of the mails if empty."""

    stock_url: SecretUrl = SecretUrl("")
    """Where the warehouse says what has come in, `https://key@warehouse.example/received`; empty asks nobody."""

    carrier_url: SecretUrl = SecretUrl("")
    """Whom to ask whether an address is delivered to, `https://key@carrier.example/check`; empty asks nobody."""

    password_method: str = "scrypt:32768:8:1"  # noqa: S105  # a method, not a password
    """How passwords are hashed, in werkzeug's notation; this default costs about 0.1 s of one core and 32 MB."""

    def problems(self) -> Iterator[str]:
        """Yield a sentence for each secret that is missing or too short."""
        for key, secret in (("SECRET_KEY", self.secret_key), ("JWT_SECRET_KEY", self.jwt_secret_key)):
            length = len(secret.reveal())
            if length == 0 and not self.homely:
                yield f"{key} is not set; {_MAKE_ONE}"
            elif 0 < length < SHORTEST_SECRET:
                yield f"{key} must have at least {SHORTEST_SECRET} characters, not {length}; {_MAKE_ONE}"

    @property
    def homely(self) -> bool:
        """True on a developer's machine and in tests, where secrets make themselves."""
        return self.environment in ("development", "test")

    @property
    def mail_folder(self) -> Path:
        """Where mails are written when there is no MAIL_URL."""
        return Path(self.mail_dir) if self.mail_dir else Path(self.data_dir) / "mails"


def load_settings(config: Mapping[str, Any], root: Path) -> ShopSettings:
    """Read the shop's settings as the kit reads its own; ConfigError lists all that is wrong with them."""
    settings = read_settings([ShopSettings], find_sources(config, root)).section(ShopSettings)
    data = Path(settings.data_dir or root.parent / "instance").absolute()
    return msgspec.structs.replace(settings, data_dir=str(data))


def apply_settings(app: Flask, settings: ShopSettings) -> None:
    """Put into `app.config` what Flask and Flask-JWT-Extended look up there."""
    data = Path(settings.data_dir)
    app.extensions["shop"] = settings
    app.config["SECRET_KEY"] = _secret(settings.secret_key, data / "session.key")
    app.config["JWT_SECRET_KEY"] = _secret(settings.jwt_secret_key, data / "jwt.key")
    app.config["JWT_SECRET_KEY_FALLBACKS"] = [key.reveal() for key in settings.jwt_secret_key_fallbacks]
    app.config.setdefault("JWT_ACCESS_TOKEN_EXPIRES", timedelta(minutes=15))
    app.config.setdefault("JWT_REFRESH_TOKEN_EXPIRES", timedelta(days=30))


def shop_settings() -> ShopSettings:
    """Return the settings of the current application."""
    settings: ShopSettings = current_app.extensions["shop"]
    return settings


def _secret(given: Secret, path: Path) -> str:
    """Return the given secret; without one, that of *path*, which the first process to come writes."""
    if given:
        return given.reveal()
    _make_folder(path.parent)
    draft = path.with_suffix(f".{secrets.token_hex(4)}")
    draft.touch(mode=0o600)
    draft.write_text(secrets.token_hex(32), encoding="ascii")
    try:
        os.link(draft, path)  # fails if another worker was first; a link is never seen half written
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return path.read_text(encoding="ascii")


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            [f"The data directory {path} cannot be made: {error.strerror}; set DATA_DIR."]
        ) from error
    if not os.access(path, os.W_OK):
        raise ConfigError([f"The data directory {path} cannot be written to; set DATA_DIR to one that can."])
