from __future__ import annotations

import os
import pty
import select
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import os, signal, sys
from contextlib import nullcontext
from flask_prod.server.terminal import foreground

heard = []
signal.signal(signal.SIGINT, lambda *_: heard.append(1))
with foreground() if sys.argv[1] == "foreground" else nullcontext():
    print("ready", flush=True)
    while not heard:
        signal.pause()
print("ended", flush=True)
"""


def run_make(folder: Path, mode: str) -> tuple[int, str]:
    """Run the program as a recipe of make on a terminal of its own, type Ctrl-C, return exit code and output."""
    (folder / "program.py").write_text(PROGRAM)
    (folder / "Makefile").write_text(f"demo:\n\t@exec {sys.executable} program.py {mode}\n")
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp("make", ["make", "-C", str(folder), "demo"])

    said = ""
    typed = False
    deadline = time.monotonic() + 20
    try:
        while time.monotonic() < deadline and select.select([terminal], [], [], 5)[0]:
            said += os.read(terminal, 4096).decode()
            if "ready" in said and not typed:
                os.write(terminal, b"\x03")
                typed = True
    except OSError:
        pass  # the terminal's other side is closed: make has ended
    finally:
        os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said


def test_make_ends_well_on_ctrl_c(tmp_path: Path) -> None:
    """Ctrl-C reaches the recipe alone, so that make ends with the recipe's own exit code."""
    code, said = run_make(tmp_path, "foreground")

    assert code == 0, said
    assert "ended" in said


def test_without_it_make_reports_an_interrupt(tmp_path: Path) -> None:
    """The yardstick: a recipe that leaves the terminal alone ends make with an error, however well it ends."""
    ends = [run_make(tmp_path, "plain") for _ in range(3)]  # make may miss it on a busy machine

    assert any(code != 0 for code, _ in ends), ends


def test_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal nothing changes."""
    from flask_prod.server import terminal

    monkeypatch.setattr(terminal, "TERMINAL", "/nowhere/tty")
    group = os.getpgrp()
    with terminal.foreground():
        assert os.getpgrp() == group
