"""Encryption in pieces: nothing can be changed, moved or left out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_prod.components.backups import crypt
from flask_prod.components.backups.manifest import BackupError

SECRET = "a long enough secret"
SALT = bytes(range(16))
KEY = crypt.keys_of(SECRET, SALT)[0]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Derive the key once: that takes 0.1 s."""
    monkeypatch.setattr(crypt, "keys_of", lambda *_: (KEY, KEY))


def encrypted(data: bytes) -> bytes:
    out = bytearray()
    encryptor = crypt.Encryptor(KEY, SALT, out.extend)
    for start in range(0, len(data), 50_000):
        encryptor.write(data[start : start + 50_000])
    encryptor.close()
    return bytes(out)


def opened(data: bytes, size: int = 10_000) -> bytes:
    return b"".join(crypt.decrypted((data[i : i + size] for i in range(0, len(data), size)), SECRET, "it"))


@pytest.mark.parametrize("size", [0, 1, crypt.PIECE - 1, crypt.PIECE, crypt.PIECE + 1, 3 * crypt.PIECE])
def test_there_and_back(size: int) -> None:
    """Any length comes back as it was, at the bounds of pieces too."""
    data = bytes(range(256)) * (size // 256 + 1)

    assert opened(encrypted(data[:size])) == data[:size]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_change(data: st.DataObject) -> None:
    """A changed byte and a missing end are found, wherever they are."""
    whole = encrypted(b"x" * (2 * crypt.PIECE + 100))
    place = data.draw(st.integers(0, len(whole) - 1))
    mask = data.draw(st.integers(1, 255))

    for broken in (whole[:place], whole[:place] + bytes([whole[place] ^ mask]) + whole[place + 1 :]):
        with pytest.raises(BackupError):
            opened(broken)


def test_missing_pieces() -> None:
    """A backup that ends between two pieces is not whole, though each of them is."""
    whole = encrypted(bytes(3 * crypt.PIECE))

    with pytest.raises(BackupError):
        opened(whole[: crypt.HEADER + crypt.PIECE + 16])


def test_pieces_in_another_order() -> None:
    """Two whole pieces that changed places do not pass."""
    whole = encrypted(bytes(crypt.PIECE) + b"\1" * crypt.PIECE + b"end")
    size = crypt.PIECE + 16
    head, first, second = whole[: crypt.HEADER], *(whole[crypt.HEADER + i * size :][:size] for i in (0, 1))

    with pytest.raises(BackupError):
        opened(head + second + first + whole[crypt.HEADER + 2 * size :])
