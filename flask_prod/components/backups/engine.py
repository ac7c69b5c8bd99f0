"""What the commands and the application use: `prod.backups`."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from time import perf_counter
from typing import Any

from flask_prod.core.component import Event, Installed
from flask_prod.core.ports import GaugePort

from . import crypt
from . import manifest as manifests
from .manifest import BackupError, Manifest, Sums
from .retention import kept
from .settings import BackupSettings
from .sources import Source, source_of
from .stores import ABANDONED, Store, store_of
from .stream import Packer, unpacked, verified

DATA, MANIFEST = ".backup", ".json"
LATEST = "latest"

_STAMP = "%Y%m%d-%H%M%S"
_ORPHAN = re.compile(r".*-(\d{8}-\d{6})-[0-9a-f]{4}\.backup")


@dataclass(frozen=True)
class Report:
    """What came of a restore or a verification."""

    manifest: Manifest
    seconds: float


class Backups:
    """The backups of one application's database."""

    def __init__(
        self, settings: BackupSettings, kit: Installed, engine: Callable[[], Any], gauge: GaugePort
    ) -> None:
        self.settings = settings
        self._kit = kit
        self._engine = engine
        self._gauge = gauge

    def run(self) -> Manifest:
        """Make a backup, then remove those that BACKUP_KEEP lets go; return what was made.

        BackupError when there is none: then nothing is stored that looks like a backup, and none is removed.
        """
        began = perf_counter()
        try:
            made = self._make(began)
        except Exception as error:
            message = "The database could not be backed up."
            self._kit.emit(Event("prod.backup.failed", message, severity="error", error=error))
            raise
        try:
            removed = self._remove_old(made)
        except Exception as error:  # what was made is good all the same
            removed = 0
            message = "Old backups could not be removed; the next backup tries again."
            self._kit.emit(Event("prod.backup.kept", message, severity="warning", error=error))
        fields = {
            "backup": made.name,
            "bytes": made.size,
            "rows": made.rows,
            "seconds": made.seconds,
            "removed": removed,
        }
        self._kit.emit(Event("prod.backup.made", "The database was backed up.", fields=fields))
        self._gauge.set(made.made_at.timestamp())
        return made

    def all(self) -> list[Manifest]:
        """Return the backups of this service, the newest first; a damaged manifest is left out."""
        return [one for one in self._readable() if one.service == self._kit.service.service_name]

    def damaged(self) -> list[str]:
        """Return the names of backups whose manifest cannot be read."""
        whole = {one.name for one in self._readable()}
        return sorted(set(self._names(self._store())) - whole)

    def verify(self, name: str = LATEST, scratch: str = "") -> Report:
        """Restore a backup into a scratch database and compare every table; BackupError says what differs.

        The scratch database is made beside the service's own, or on the server of *scratch*, and dropped.
        """
        began = perf_counter()
        store, found = self._find(name)
        source = source_of(scratch or self._engine(), self.settings.pg_bin, found.kind)
        with source.scratch() as target:
            self._restore(store, found, target, overwrite=False)
        return Report(found, perf_counter() - began)

    def restore(self, name: str, into: str, *, overwrite: bool = False) -> Report:
        """Restore a backup into the database at the address *into*, or the service's own by `self`.

        It must be empty, unless *overwrite*: then what the backup has is replaced. When anything fails, or the
        result differs from the manifest on SQLite, the database stays as it was.
        """
        began = perf_counter()
        store, found = self._find(name)
        target = source_of(self._engine() if into == "self" else into, self.settings.pg_bin, found.kind)
        self._restore(store, found, target, overwrite=overwrite)
        return Report(found, perf_counter() - began)

    def name_of(self, into: str) -> str:
        """Return the name of the database that *into* stands for."""
        return source_of(self._engine() if into == "self" else into, self.settings.pg_bin).name

    def newest(self) -> Manifest | None:
        """Return the last whole backup of this service."""
        return next(iter(self.all()), None)

    def _make(self, began: float) -> Manifest:
        store = self._store()
        self._sweep(store)
        source = source_of(self._engine(), self.settings.pg_bin)
        made_at = manifests.now()
        service = self._kit.service
        name = f"{service.service_name}-{made_at:{_STAMP}}-{secrets.token_hex(2)}"
        with source.dump() as dump, store.create(name + DATA) as sink:
            packer = Packer(sink.write, self.settings.key.reveal())
            for data in dump.chunks:
                packer.write(data)
            packer.close()
        found = Manifest(
            format=manifests.FORMAT, name=name, made_at=made_at, seconds=round(perf_counter() - began, 3),
            service=service.service_name, environment=service.environment, flask_prod=_own_version(),
            kind=source.kind, server_version=dump.server_version, database=source.name, revision=dump.revision,
            compression=packer.compression, salt=packer.salt.hex(), size=packer.size, sha256=packer.sha256,
            tables=dump.sums,
        )  # fmt: skip
        raw = manifests.written(found, packer.signing_key)
        try:
            with store.create(name + MANIFEST) as sink:
                sink.write(raw)
        except BackupError:
            store.delete(name + DATA)
            raise
        return manifests.read(name, raw)

    def _sweep(self, store: Store) -> None:
        """Remove what backups that were killed have left: drafts, and data without a manifest, of a day ago."""
        store.sweep()
        names = set(store.names())
        latest = f"{manifests.now() - timedelta(seconds=ABANDONED):{_STAMP}}"
        for name in names:
            match = _ORPHAN.fullmatch(name)
            if match and name.removesuffix(DATA) + MANIFEST not in names and match[1] < latest:
                store.delete(name)

    def _remove_old(self, made: Manifest) -> int:
        """Remove what BACKUP_KEEP lets go; only whole backups of this service and database are counted."""
        store = self._store()
        ours = [one for one in self.all() if (one.environment, one.kind) == (made.environment, made.kind)]
        staying = kept([one.made_at for one in ours], self.settings.keep)
        leaving = [one for one in ours if one.made_at not in staying]
        for one in leaving:
            store.delete(one.name + MANIFEST)  # first: without one, nobody takes the rest for a backup
            store.delete(one.name + DATA)
        return len(leaving)

    def _restore(self, store: Store, found: Manifest, target: Source, *, overwrite: bool) -> None:
        """Read everything once to check it, and again to restore it."""
        with store.open(found.name + DATA) as stream:
            for _ in verified(stream, found):
                pass
        check = partial(_compare, found, others=overwrite)
        with store.open(found.name + DATA) as stream:
            chunks = unpacked(verified(stream, found), found, self.settings.key.reveal())
            target.restore(chunks, overwrite=overwrite, major=_major(found), check=check)

    def _find(self, name: str) -> tuple[Store, Manifest]:
        store = self._store()
        if name == LATEST:
            newest = self.newest()
            if newest is None:
                raise BackupError(
                    f"There is no backup of {self._kit.service.service_name} in {self.settings.url}."
                )
            name = newest.name
        name = name.removesuffix(MANIFEST).removesuffix(DATA)
        if name + MANIFEST not in store.names():
            raise BackupError(f"There is no backup {name!r}: see `flask prod db backups`.")
        found = self._read(store, name)
        manifests.check_signature(found, self._signing_key(found))
        return store, found

    def _signing_key(self, found: Manifest) -> bytes | None:
        secret = self.settings.key.reveal()
        return crypt.keys_of(secret, bytes.fromhex(found.salt))[1] if secret else None

    def _readable(self) -> list[Manifest]:
        store = self._store()
        found = []
        for name in self._names(store):
            try:
                found.append(self._read(store, name))
            except BackupError:
                continue
        return sorted(found, key=lambda one: (one.made_at, one.name), reverse=True)

    def _names(self, store: Store) -> Iterator[str]:
        """Yield the backups that have both of their files."""
        names = set(store.names())
        return (name.removesuffix(MANIFEST) for name in names if name.endswith(MANIFEST) and
                name.removesuffix(MANIFEST) + DATA in names)  # fmt: skip

    def _read(self, store: Store, name: str) -> Manifest:
        with store.open(name + MANIFEST) as stream:
            return manifests.read(name, stream.read())

    def _store(self) -> Store:
        return store_of(self.settings)


def _compare(found: Manifest, sums: dict[str, Sums], *, others: bool) -> None:
    """Raise BackupError where tables are not as they were; with *others* there may be more than these."""
    kept = {name: one for name, one in sums.items() if name in found.tables} if others else sums
    said = manifests.differences(found.tables, kept)
    if said:
        raise BackupError(f"{found.name} does not give back what was backed up: {'; '.join(said[:5])}.")


def _major(found: Manifest) -> int:
    digits = found.server_version.partition(".")[0].partition(" ")[0]
    return int(digits) if digits.isdigit() else 0


def _own_version() -> str:
    try:
        return version("flask-prod")
    except PackageNotFoundError:
        return "unknown"
