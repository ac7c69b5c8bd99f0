"""Whether the code on disk would come up: loaded by another process, before a reload lets go of what works.

`python -IS trial.py PARENT SECONDS COMMAND...` runs the command for so long at most, and writes one line of JSON.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_LONGEST = 500
"""Characters of a reason."""

_KEPT = 65536
"""Bytes of output that are looked at for it."""

_ERROR = re.compile(r"[A-Za-z_][\w.]*(?:: |$)")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of it; `reason` is the error's last line, without secrets."""

    good: bool
    reason: str = ""


class Trial:
    """One try in the background.

    The process is not waited for: whoever waits for all children, as gunicorn does, buries it.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str], seconds: float) -> None:
        self._text = b""
        self._ear, mouth = os.pipe()
        os.set_blocking(self._ear, False)
        words = [sys.executable, "-IS", str(Path(__file__)), str(os.getpid()), f"{seconds:g}", *command]
        actions = [(os.POSIX_SPAWN_DUP2, mouth, 1)]
        os.posix_spawn(sys.executable, words, dict(env), file_actions=actions)
        os.close(mouth)

    def verdict(self) -> Verdict | None:
        """Return what came of it, None as long as it is not known; not to be asked again after that."""
        try:
            while data := os.read(self._ear, _KEPT):
                self._text += data
        except BlockingIOError:
            return None
        os.close(self._ear)
        return read(self._text)


def read(text: bytes) -> Verdict:
    """Return the verdict that a trial wrote."""
    from flask_prod.core.redaction import redact_text

    try:
        code, output = json.loads(text)
    except ValueError:
        return Verdict(False, "the trial ended without a word")
    if code == 0:
        return Verdict(True)
    return Verdict(False, redact_text(reason(output)) or f"exit code {code}")


def reason(output: str) -> str:
    """Return the exception and its message, else the last line."""
    lines = [line for line in output.splitlines() if line.strip()]
    at = next((i for i in range(len(lines) - 1, -1, -1) if _ERROR.match(lines[i])), len(lines) - 1)
    found = " ".join(line.strip() for line in lines[at:]) if lines else ""
    return found if len(found) <= _LONGEST else found[: _LONGEST - 1] + "\u2026"


def main() -> None:
    """Run the command and tell what came of it; ends with the process that started it."""
    parent, seconds, *command = sys.argv[1:]
    bound = [sys.executable, "-IS", str(Path(__file__).with_name("bound.py")), str(os.getpid()), "9", *command]
    _end_with(int(parent))
    try:
        ended = subprocess.run(  # noqa: S603  # the server's own command line
            bound, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=float(seconds), check=False,
        )  # fmt: skip
        said: tuple[int, str] = ended.returncode, ended.stdout[-_KEPT:].decode("utf-8", "replace")
    except subprocess.TimeoutExpired:
        said = 1, f"it did not load within {seconds} s"
    sys.stdout.write(json.dumps(said))


def _end_with(parent: int) -> None:
    """Let the kernel end this process with its parent (Linux only)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, 9)
        if os.getppid() != parent:
            sys.exit(1)


if __name__ == "__main__":
    main()
