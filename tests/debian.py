"""Programs from Debian's packages, for tests only: from PATH, else unpacked into a folder, without root."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

LAUNCHER = """#!/bin/sh
# Runs a program of this folder with the libraries and fonts of this folder.
here=$(cd "$(dirname "$0")" && pwd)
export LD_LIBRARY_PATH="{libraries}" FONTCONFIG_FILE="$here/fonts.conf"
exec "$here/{program}" "$@"
"""
FONTS = """<?xml version="1.0"?>
<fontconfig><dir prefix="relative">usr/share/fonts</dir><cachedir prefix="xdg">fontconfig</cachedir></fontconfig>
"""


class Missing(Exception):
    """The program is not there and cannot be brought; a sentence says why."""


def kept(config: pytest.Config) -> Path:
    """Return a folder that outlives the run: what is unpacked there is unpacked once."""
    cache: pytest.Cache | None = getattr(config, "cache", None)  # pytest can be told to do without
    return cache.mkdir("debian") if cache is not None else Path(tempfile.gettempdir())


def provide(names: Sequence[str], package: str, folder: Path, without: Sequence[str] | None = None) -> str:
    """Return the path of the program that has one of *names*, unpacking *package* below *folder* if need be.

    The program in the package is called as the package, or lies in its usr/bin by the first name. With *without*
    the packages that it depends on come too, where the machine lacks them and their names do not begin with one
    of these. Raise Missing where that fails.
    """
    found = next(filter(None, map(shutil.which, names)), None)
    unpacked = folder / package / "start"
    if found is None and not unpacked.exists():
        try:
            with _alone(folder, package):
                if not unpacked.exists():
                    _unpack(package, folder, without)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            raise Missing(f"no {names[0]} on PATH, nor can apt-get bring {package}: {_reason(error)}") from error
    beside = unpacked.parent / "usr/bin" / names[0]  # promtool of the package prometheus, which needs no launcher
    return found or str(beside if names[0] != package and beside.is_file() else unpacked)


@contextmanager
def _alone(folder: Path, package: str) -> Iterator[None]:
    """Let one of several test processes bring a package, and the others wait for it."""
    with open(folder / f"{package}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _unpack(package: str, folder: Path, without: Sequence[str] | None) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as apart:
        root = _bring(package, Path(apart), without)
        shutil.rmtree(folder / package, ignore_errors=True)  # what an older version of this file left
        root.rename(folder / package)


def _reason(error: Exception) -> str:
    """Return the last words of a command that failed, else what the error says."""
    words = error.stderr if isinstance(error, subprocess.CalledProcessError) else ""
    return (words.strip() or str(error)).splitlines()[-1]


def _bring(package: str, folder: Path, without: Sequence[str] | None) -> Path:
    """Download and unpack within *folder*; return what goes to its place when it is whole."""
    apt = _apt(folder)
    run(*apt, "update")
    names = [package] if without is None else _wanted(apt, package, tuple(without))
    archives, root = folder / "archives", folder / "root"
    for made in (archives, root):
        made.mkdir()
    run(*apt, "download", *names, cwd=archives)
    for archive in archives.iterdir():
        run("dpkg-deb", "-x", str(archive), str(root))
    _write_launcher(root, package)
    return root


def _apt(folder: Path) -> list[str]:
    """Return apt-get with lists of our own: the machine's may be missing, or not ours to update."""
    for part in ("lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    options = {
        "Dir::State::Lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "Dir::Log": folder,
        "APT::Sandbox::User": "",
        "Debug::NoLocking": "1",
    }
    return ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]


def _wanted(apt: Sequence[str], package: str, without: tuple[str, ...]) -> list[str]:
    """Return what an installation of *package* would add to this machine."""
    plan = run(*apt, "--simulate", "--no-install-recommends", "install", package).splitlines()
    names = [line.split()[1] for line in plan if line.startswith("Inst ")]
    return [name for name in names if not name.startswith(without)]


def _write_launcher(root: Path, package: str) -> None:
    """Write `start`, which runs the program itself rather than a script that expects it below /usr."""
    program = max((path for path in root.rglob(package) if path.is_file()), key=lambda path: path.stat().st_size)
    libraries = sorted({path.parent.relative_to(root) for path in root.rglob("*.so*")})
    text = LAUNCHER.format(
        libraries=":".join(f"$here/{path}" for path in libraries), program=program.relative_to(root)
    )
    (root / "start").write_text(text)
    (root / "start").chmod(0o755)
    (root / "fonts.conf").write_text(FONTS)


def run(*command: str, cwd: Path | None = None) -> str:
    """Run a command to its end and return what it prints; raise with its last words."""
    done = subprocess.run(
        command,
        cwd=cwd,
        check=True,
        timeout=180,
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    return done.stdout
