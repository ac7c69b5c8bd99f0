"""Encryption in pieces: AES-256-GCM, each piece bound to its place and the last one to the end."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from flask_prod.core.errors import MissingExtra

from .manifest import BackupError

MAGIC = b"FPB1"
SALT = 16
_PREFIX = 7
HEADER = len(MAGIC) + SALT + _PREFIX
PIECE = 64 * 1024
_TAG = 16


def keys_of(secret: str, salt: bytes) -> tuple[bytes, bytes]:
    """Return the key that encrypts and the one that signs; 0.1 s and 32 MB of work slow guesses down."""
    # RFC 7914 with N = 2^15, the interactive parameters that its author gave in 2017.
    both = hashlib.scrypt(secret.encode(), salt=salt, n=2**15, r=8, p=1, maxmem=64 * 1024**2, dklen=64)
    return both[:32], both[32:]


class Encryptor:
    """Takes bytes and passes pieces on."""

    def __init__(self, key: bytes, salt: bytes, write: Callable[[bytes], None]) -> None:
        prefix = os.urandom(_PREFIX)
        self._header = MAGIC + salt + prefix
        self._cipher, self._prefix, self._write = _aes(key), prefix, write
        self._held = bytearray()
        self._count = 0
        write(self._header)

    def write(self, data: bytes) -> None:
        """Encrypt all but what may be the last piece."""
        self._held += data
        while len(self._held) > PIECE:
            self._piece(bytes(self._held[:PIECE]), last=False)
            del self._held[:PIECE]

    def close(self) -> None:
        """Encrypt the last piece, which says that it is."""
        self._piece(bytes(self._held), last=True)

    def _piece(self, data: bytes, *, last: bool) -> None:
        self._write(self._cipher.encrypt(_nonce(self._prefix, self._count, last), data, self._header))
        self._count += 1


def decrypted(chunks: Iterable[bytes], secret: str, name: str) -> Iterator[bytes]:
    """Yield what was encrypted; BackupError for a wrong key, a changed piece, another order, a missing end."""
    source = iter(chunks)
    held = bytearray()
    header = _take(source, held, HEADER)
    if not header.startswith(MAGIC) or len(header) < HEADER:
        raise BackupError(f"{name} is damaged: it does not begin as an encrypted backup does.")
    cipher = _aes(keys_of(secret, header[len(MAGIC) : len(MAGIC) + SALT])[0])
    prefix = header[-_PREFIX:]
    count, last = 0, False
    while not last:
        piece = _take(source, held, PIECE + _TAG)
        last = not _fill(source, held, 1)
        try:
            yield cipher.decrypt(_nonce(prefix, count, last), piece, header)
        except Exception as error:  # InvalidTag, or ValueError for a piece that is too short
            raise BackupError(
                f"{name} cannot be decrypted: BACKUP_KEY is another one, or it is damaged."
            ) from error
        count += 1


def _take(source: Iterator[bytes], held: bytearray, size: int) -> bytes:
    _fill(source, held, size)
    taken = bytes(held[:size])
    del held[:size]
    return taken


def _fill(source: Iterator[bytes], held: bytearray, size: int) -> bool:
    """Hold *size* bytes if there are as many left."""
    while len(held) < size:
        more = next(source, None)
        if more is None:
            return False
        held += more
    return True


def _nonce(prefix: bytes, count: int, last: bool) -> bytes:
    return prefix + count.to_bytes(4, "big") + bytes([last])


def _aes(key: bytes) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise MissingExtra("BACKUP_KEY", "cryptography", "encryption") from error
    return AESGCM(key)
