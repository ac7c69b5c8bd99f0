"""nginx of Debian's testing release, unpacked with the libraries it needs: as young as the one that compose names.

The machine's own release may lack what the rendered files use: `http2 on;` needs 1.25.1, `resolve` 1.27.3.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests import debian

RELEASE = "forky"
PACKAGES = ("nginx", "libc6", "libcrypt1", "libpcre2-8-0", "libssl3t64", "libzstd1", "zlib1g")
LAUNCHER = """#!/bin/sh
# Runs this nginx with the loader and the libraries beside it: it is younger than the machine's.
here=$(cd "$(dirname "$0")" && pwd)
set -- --library-path "$here"/usr/lib/*-linux-gnu* "$here/usr/sbin/nginx" "$@"
exec "$here"/usr/lib*/ld-linux-* "$@"
"""


def nginx(config: pytest.Config) -> Path:
    """Return the folder in which it is unpacked; `start` there runs it. Skip the test where it cannot be had."""
    home = debian.kept(config) / f"nginx-{RELEASE}"
    if not (home / "start").exists():
        try:
            with tempfile.TemporaryDirectory(dir=home.parent) as apart:
                root = _unpacked(Path(apart))
                shutil.rmtree(home, ignore_errors=True)
                root.rename(home)
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"no nginx of Debian {RELEASE} here: {getattr(error, 'stderr', '') or error}")
    return home


def _unpacked(folder: Path) -> Path:
    """Download and unpack all packages below *folder*."""
    apt = _apt(folder)
    debian.run(*apt, "update")
    archives, root = folder / "archives", folder / "root"
    for made in (archives, root):
        made.mkdir()
    debian.run(*apt, "download", *(f"{name}/{RELEASE}" for name in PACKAGES), cwd=archives)
    for archive in archives.iterdir():
        debian.run("dpkg-deb", "-x", str(archive), str(root))
    start = root / "start"
    start.write_text(LAUNCHER)
    start.chmod(0o755)
    return root


def _apt(folder: Path) -> Sequence[str]:
    """Return apt-get with lists of this release alone, in a folder of our own."""
    for part in ("lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "sources.list").write_text(f"deb {_mirror()} {RELEASE} main\n")
    options = {
        "Dir::Etc::SourceList": folder / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "Dir::Log": folder,
        "APT::Sandbox::User": "",
        "Debug::NoLocking": "1",
        "Acquire::Languages": "none",
    }
    return ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]


def _mirror() -> str:
    """Return where this machine gets Debian's packages from; OSError where it does not say."""
    for path in (*Path("/etc/apt/sources.list.d").glob("*.sources"), Path("/etc/apt/sources.list")):
        if path.is_file():
            found = re.search(
                r"^(?:URIs:|deb(?: \[.*\])?)\s+(\S+/debian/?)(?:\s|$)", path.read_text(), re.MULTILINE
            )
            if found:
                return found[1]
    raise FileNotFoundError("apt's lists of sources name no Debian")
