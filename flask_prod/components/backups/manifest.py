"""What is written beside each backup: where it comes from, and what must come out of it again."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from flask_prod.core.errors import ProdKitError

FORMAT = 1
_HASH, _SIGNED = "sha256:", "hmac-sha256:"


class BackupError(ProdKitError):
    """A backup could not be made, is damaged, or cannot be restored; the message says what to do."""


class Sums(msgspec.Struct, frozen=True):
    """How many rows a table has, and the sum of their hashes: the order of rows does not matter."""

    rows: int
    checksum: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One backup; `size` and `sha256` are those of the stored bytes."""

    format: int
    name: str
    made_at: datetime
    seconds: float
    service: str
    environment: str
    flask_prod: str
    kind: str
    server_version: str
    database: str
    revision: list[str]
    compression: str
    salt: str
    size: int
    sha256: str
    tables: dict[str, Sums]
    seal: str = ""

    @property
    def encrypted(self) -> bool:
        """True when the stored bytes need a BACKUP_KEY."""
        return bool(self.salt)

    @property
    def rows(self) -> int:
        """All rows of all tables."""
        return sum(table.rows for table in self.tables.values())


def written(manifest: Manifest, key: bytes | None) -> bytes:
    """Return the manifest as JSON with its seal: a signature where there is a key, else a hash."""
    return _json(msgspec.structs.replace(manifest, seal=_seal(manifest, key)))


def read(name: str, raw: bytes) -> Manifest:
    """Return the manifest called *name*; BackupError when a single byte of it is not as it was written.

    A signature is not checked: `check_signature` does, with the key.
    """
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise BackupError(f"The manifest of {name} is damaged: {error}. Use another backup.") from error
    if manifest.format != FORMAT:
        raise BackupError(f"{name} has format {manifest.format}, which this version of flask-prod does not read.")
    plain = manifest.seal.startswith(_HASH)
    whole = _json(manifest) == raw and manifest.name == name and (plain or manifest.seal.startswith(_SIGNED))
    if not whole or (plain and _seal(manifest, None) != manifest.seal):
        raise BackupError(f"The manifest of {name} is damaged: its checksum does not fit. Use another backup.")
    return manifest


def check_signature(manifest: Manifest, key: bytes | None) -> None:
    """Raise BackupError unless the manifest was signed with *key*, or there is neither key nor signature."""
    signed = manifest.seal.startswith(_SIGNED)
    if signed and key is None:
        raise BackupError(f"{manifest.name} is encrypted: set the BACKUP_KEY it was made with.")
    if not signed and key is not None:
        raise BackupError(
            f"{manifest.name} is neither encrypted nor signed, and there is a BACKUP_KEY: whoever writes to the "
            "store could have put it there. Unset BACKUP_KEY to use it all the same."
        )
    if signed and not hmac.compare_digest(_seal(manifest, key), manifest.seal):
        raise BackupError(
            f"BACKUP_KEY is not the one that {manifest.name} was made with, or its manifest was changed."
        )


def now() -> datetime:
    """Return the moment in UTC, to the second."""
    return datetime.now(UTC).replace(microsecond=0)


def differences(wanted: Mapping[str, Sums], found: Mapping[str, Sums]) -> list[str]:
    """Return in words each table that does not hold what it should."""
    said = [f"{name} is missing" for name in wanted if name not in found]
    said += [f"{name} was not in the backup" for name in found if name not in wanted]
    for name in wanted.keys() & found.keys():
        if wanted[name].rows != found[name].rows:
            said.append(f"{name} has {found[name].rows} rows, not {wanted[name].rows}")
        elif wanted[name] != found[name]:
            said.append(f"{name} has other contents")
    return sorted(said)


def _seal(manifest: Manifest, key: bytes | None) -> str:
    body = _json(msgspec.structs.replace(manifest, seal=""))
    if key is None:
        return _HASH + hashlib.sha256(body).hexdigest()
    return _SIGNED + hmac.new(key, body, hashlib.sha256).hexdigest()


def _json(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=2) + b"\n"
