"""A stand-in for the official Python image, packed from the Debian packages of this machine in a few seconds.

What it is not: digest, size and release of the true image; its Python is the one of this machine's Debian.
Everything in it comes from packages, nothing from the machine's own files but the certificates it trusts.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

STATUS = Path("/var/lib/dpkg/status")
LISTS = Path("/var/lib/dpkg/info")
PACKAGES = (
    "base-files", "bash", "ca-certificates", "coreutils", "dash", "findutils", "grep", "hostname", "libc-bin",
    "netbase", "python3", "python3-pip", "python3-venv", "sed", "tar", "tzdata",
)  # fmt: skip
"""What of the official image anybody's Dockerfile may expect; the packages that these depend on come along."""

_LEFT_OUT = re.compile(r"/usr/share/(man|locale|info|doc|doc-base|bash-completion|lintian|perl)/|/usr/lib/.*/perl")
_FOLDERS = ("dev", "proc", "sys", "run", "tmp", "var/tmp", "root", "home", "app")
_LINKS = {"usr/local/bin/python3": "/usr/bin/python3", "usr/local/bin/python": "/usr/bin/python3"}
_ACCOUNTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
}


def missing() -> list[str]:
    """Return the packages that must be installed first."""
    known = _dependencies()
    return [name for name in PACKAGES if name not in known]


def pack(out: IO[bytes]) -> None:
    """Write the root file system as a tar."""
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in _FOLDERS:
            _add_folder(tar, name, 0o1777 if name.endswith("tmp") else 0o755)
        for top in ("bin", "lib", "lib64", "sbin"):
            if os.path.islink(f"/{top}"):
                _add_link(tar, top, os.readlink(f"/{top}"))
        for path in sorted(set(_files()) - {f"/{name}" for name in (*_FOLDERS, *_LINKS, *_ACCOUNTS)}):
            tar.add(path, path.lstrip("/"), recursive=False)
        for name, target in _LINKS.items():
            _add_link(tar, name, target)
        for name, text in _ACCOUNTS.items():
            _add_text(tar, name, text)


def _files() -> Iterator[str]:
    """Yield the paths of all packages, below /usr where / only links to it, and what installing them has made."""
    for name in _closure():
        for listing in (LISTS / f"{name}.list", *LISTS.glob(f"{name}:*.list")):
            if not listing.is_file():
                continue
            for line in listing.read_text().splitlines():
                folder, base = os.path.split(line)
                path = os.path.join(os.path.realpath(folder), base)
                if base and os.path.lexists(path) and not _LEFT_OUT.match(f"{path}/") and path.count("/") > 1:
                    yield path
    yield from ("/etc/ld.so.cache", "/etc/ssl/certs/ca-certificates.crt", "/usr/bin/awk")


def _closure() -> set[str]:
    """Return PACKAGES and all that they depend on, of what is installed here."""
    known = _dependencies()
    found: set[str] = set()
    ahead = list(PACKAGES)
    while ahead:
        name = ahead.pop()
        if name in known and name not in found:
            found.add(name)
            ahead += known[name]
    return found


def _dependencies() -> Mapping[str, list[str]]:
    """Return package -> packages that it names as needed, alternatives included, for what dpkg has installed."""
    known = {}
    for record in STATUS.read_text(errors="replace").split("\n\n"):
        fields = dict(re.findall(r"^([\w-]+): (.*)$", record, re.MULTILINE))
        if " installed" in fields.get("Status", ""):
            needed = ",".join(fields.get(key, "") for key in ("Depends", "Pre-Depends"))
            known[fields["Package"]] = re.findall(r"(?:^|[,|])\s*([a-z0-9][a-z0-9.+-]+)", needed)
    return known


def _add_folder(tar: tarfile.TarFile, name: str, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, mode
    tar.addfile(entry)


def _add_link(tar: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    tar.addfile(entry)


def _add_text(tar: tarfile.TarFile, name: str, text: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(text), 0o644
    tar.addfile(entry, io.BytesIO(text.encode()))
