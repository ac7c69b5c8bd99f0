"""The programs that check deployment files: from this environment, from PATH, or unpacked from a package.

What cannot be had here skips the test, with its reason: a check that did not run is never a check that passed.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests import debian

DEBIAN: Mapping[str, str] = {
    "promtool": "prometheus",
    "prometheus": "prometheus",
    "amtool": "prometheus-alertmanager",
    "logrotate": "logrotate",
}
"""Program -> Debian's package with it."""


def program(name: str, config: pytest.Config) -> str:
    """Return the path of a program; skip the test where it cannot be had."""
    ours = Path(sys.executable).with_name(name)
    if ours.is_file():
        return str(ours)
    try:
        return debian.provide([name], DEBIAN.get(name, name), debian.kept(config))
    except debian.Missing as error:
        pytest.skip(f"{name} is not here: {error}")


def run(*command: str | Path, cwd: Path | None = None, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    """Run a checker to its end and return what it said; its exit code is the caller's to judge."""
    return subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, text=True, timeout=seconds, check=False
    )
