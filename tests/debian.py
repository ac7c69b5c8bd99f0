"""Programs from Debian's packages, for tests only: from PATH, else unpacked into a folder, without root."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path


def provide(program: str, package: str, folder: Path) -> str | None:
    """Return the path of *program*, unpacking *package* below *folder* if need be; None where there is no apt."""
    unpacked = folder / package / "usr" / "bin" / program
    found = shutil.which(program) or (str(unpacked) if unpacked.exists() else None)
    if found is None and shutil.which("apt-get"):
        _unpack(package, folder)
        found = str(unpacked) if unpacked.exists() else None
    return found


def _unpack(package: str, folder: Path) -> None:
    """Download the package with lists of our own: the machine's may be missing, or not ours to update."""
    for part in ("lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    options = {
        "Dir::State::Lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "Dir::Log": folder,
        "APT::Sandbox::User": "",
        "Debug::NoLocking": "1",
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    for command in ([*apt, "update"], [*apt, "download", package]):
        subprocess.run(command, cwd=folder, check=True, timeout=100, env={**os.environ, "LC_ALL": "C"})
    archive = max(folder.glob(f"{package}_*.deb"))
    subprocess.run(["dpkg-deb", "-x", archive, folder / package], check=True, timeout=60)
