"""What is stored, by each way of compressing: there and back, and no part of it for the whole."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import pytest

from flask_prod.components.backups import stream
from flask_prod.components.backups.manifest import BackupError, Manifest, now
from flask_prod.components.backups.stream import CHUNK, Packer, unpacked, verified

from .conftest import KEY, Build, rows

WAYS = {"gzip": "gzip", "zstandard": "zstd", "compression.zstd": "zstd"}
"""Library -> what manifests call it; Python has the last one from 3.14 on."""


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Compress by one library, as where it is the only one; skips where this Python has none of that name."""
    library: Any = None
    if request.param != "gzip":
        try:
            library = importlib.import_module(request.param)
        except ImportError:
            pytest.skip(f"this Python has no {request.param}")
    monkeypatch.setattr(stream, "_zstd", lambda: library)
    return WAYS[request.param]


@dataclass
class Stored:
    """The bytes in the store, and what the manifest says of them."""

    data: bytes
    manifest: Manifest

    def read(self, data: bytes | None = None, secret: str = "") -> bytes:
        """Return the dump again."""
        source = BytesIO(self.data if data is None else data)
        return b"".join(unpacked(iter(lambda: source.read(CHUNK), b""), self.manifest, secret))


def store(dump: Iterator[bytes], secret: str = "") -> Stored:
    """Pack what a dump yields."""
    kept = BytesIO()
    packer = Packer(kept.write, secret)
    for piece in dump:
        packer.write(piece)
    packer.close()
    manifest = Manifest(
        format=1, name="shop-1", made_at=now(), seconds=0.1, service="shop", environment="test", flask_prod="0",
        kind="sqlite", server_version="3", database="shop", revision=[], compression=packer.compression,
        salt=packer.salt.hex(), size=packer.size, sha256=packer.sha256, tables={},
    )  # fmt: skip
    return Stored(kept.getvalue(), manifest)


def dump() -> Iterator[bytes]:
    """Yield pieces of many sizes, some that can be compressed and some that cannot."""
    yield b""
    for size in (1, 700, CHUNK, 3 * CHUNK + 5):
        yield b"INSERT INTO items VALUES (1);\n" * (size // 30 + 1)
        yield os.urandom(size)


@pytest.mark.parametrize("secret", ["", KEY])
def test_there_and_back(way: str, secret: str) -> None:
    """The bytes of a dump come back as they were, whatever the sizes of its pieces."""
    pieces = list(dump())
    stored = store(iter(pieces), secret)

    assert stored.manifest.compression == way
    assert stored.read(secret=secret) == b"".join(pieces)
    assert b"".join(verified(BytesIO(stored.data), stored.manifest)) == stored.data
    assert len(stored.data) < sum(map(len, pieces)) * 0.6


def test_empty_dump(way: str) -> None:
    """Nothing is also something that comes back."""
    assert store(iter(())).read() == b""


@pytest.mark.parametrize("change", ["cut", "flipped", "twice", "other"])
def test_damage(way: str, change: str) -> None:
    """A missing end, a flipped byte, a second copy behind the first and bytes of another kind are damage."""
    stored = store(dump())
    middle = len(stored.data) // 2
    flipped = bytes([stored.data[middle] ^ 1])
    damaged = {
        "cut": stored.data[:-4],
        "flipped": stored.data[:middle] + flipped + stored.data[middle + 1 :],
        "twice": stored.data * 2,
        "other": b"PGDMP" + stored.data,
    }[change]

    with pytest.raises(BackupError, match="damaged"):
        list(verified(BytesIO(damaged), stored.manifest))
    if change in ("cut", "other"):
        with pytest.raises(BackupError, match="damaged"):
            stored.read(damaged)


def test_backup_that_verifies(way: str, build: Build, sqlite_url: str, tmp_path: Any) -> None:
    """A backup by each of them is restored and compared, and says by which it was made."""
    backups = build(sqlite_url, BACKUP_KEY=KEY)

    made = backups.run()
    backups.restore("latest", f"sqlite:///{tmp_path / 'back.db'}")

    assert made.compression == way
    assert backups.verify().manifest == made
    assert rows(f"sqlite:///{tmp_path / 'back.db'}", "items") == rows(sqlite_url, "items")


def test_backup_from_elsewhere(build: Build, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where zstd is missing, a backup that needs it says what to install; one by gzip is read everywhere."""
    backups = build(sqlite_url)
    pytest.importorskip("zstandard")
    with monkeypatch.context() as without:
        without.setattr(stream, "_zstd", lambda: None)
        by_gzip = backups.run()
    assert backups.verify(by_gzip.name).manifest.compression == "gzip"
    by_zstd = backups.run()
    monkeypatch.setattr(stream, "_zstd", lambda: None)

    with pytest.raises(BackupError, match="compressed by zstd: pip install zstandard"):
        backups.verify(by_zstd.name)
