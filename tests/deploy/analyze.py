"""systemd-analyze, on machines without systemd too: unpacked from Debian's packages."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest

from tests import debian

PACKAGES = ("systemd", "libsystemd-shared", "libapparmor1", "libip4tc2", "libkmod2", "libseccomp2")
"""The program, its units, and the libraries that small machines lack."""

LAUNCHER = """#!/bin/sh
here=$(cd "$(dirname "$0")" && pwd)
export LD_LIBRARY_PATH="{libraries}" SYSTEMD_UNIT_PATH="$here/lib/systemd/system"
exec "$here/usr/bin/systemd-analyze" "$@"
"""


def analyze(config: pytest.Config) -> str:
    """Return the path of systemd-analyze; skip the test where it cannot be had."""
    try:
        return _provide(debian.kept(config))
    except debian.Missing as error:
        pytest.skip(str(error))


def perhaps(config: pytest.Config) -> str:
    """Return the path of systemd-analyze, empty where it cannot be had."""
    try:
        return _provide(debian.kept(config))
    except debian.Missing:
        return ""


@cache
def _provide(folder: Path) -> str:
    found = shutil.which("systemd-analyze")
    if found:
        return found
    start = folder / "systemd-analyze" / "start"
    if not start.exists():
        try:
            with tempfile.TemporaryDirectory(dir=folder) as apart:
                root = _unpack(Path(apart))
                shutil.rmtree(start.parent, ignore_errors=True)
                root.rename(start.parent)
        except (OSError, subprocess.SubprocessError) as error:
            raise debian.Missing(f"no systemd-analyze, nor can apt-get bring it: {error}") from error
    return str(start)


def _unpack(folder: Path) -> Path:
    apt = debian._apt(folder)
    debian.run(*apt, "update")
    archives, root = folder / "archives", folder / "root"
    for made in (archives, root):
        made.mkdir()
    debian.run(*apt, "download", *PACKAGES, cwd=archives)
    for archive in archives.iterdir():
        debian.run("dpkg-deb", "-x", str(archive), str(root))
    libraries = sorted({path.parent.relative_to(root) for path in root.rglob("*.so*")})
    (root / "start").write_text(LAUNCHER.format(libraries=":".join(f"$here/{path}" for path in libraries)))
    (root / "start").chmod(0o755)
    return root
