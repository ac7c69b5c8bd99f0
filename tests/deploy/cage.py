"""Runs a command under the restrictions of a systemd unit, where there is no systemd.

    python cage.py JSON COMMAND...

JSON names: `socket`, a descriptor to hand over as systemd hands its own; `writable`, the only folders that can be
written (with the rights of root); `calls`, the system calls that are allowed, by number; `unexecutable`, whether
memory that was written can never become code (MemoryDenyWriteExecute). No capability is left, and none can be got.
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
import subprocess
import sys
from collections.abc import Sequence

_SET_MDWE, _NO_GAIN = 65, 1
_CAPBSET_DROP, _NO_NEW_PRIVS, _SECCOMP, _FILTER = 24, 38, 22, 2
_NEWNS = 0x00020000
_LAST_CAPABILITY = 40
_X86_64 = 0xC000003E
_ALLOW, _EPERM = 0x7FFF0000, 0x00050001
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06

libc = ctypes.CDLL(None, use_errno=True)


def main(wanted: dict[str, object], command: list[str]) -> None:
    """Take what is not given away, then become the command."""
    if wanted.get("writable"):
        _write_only(wanted["writable"])  # type: ignore[arg-type]  # a list of folders
    if "socket" in wanted:
        os.dup2(int(str(wanted["socket"])), 3, inheritable=True)
        os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
    for capability in range(_LAST_CAPABILITY + 1):
        libc.prctl(_CAPBSET_DROP, capability, 0, 0, 0)
    header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0))
    libc.capset(header, ctypes.create_string_buffer(24))
    _call(libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0))
    if wanted.get("unexecutable"):
        _call(libc.prctl(_SET_MDWE, _NO_GAIN, 0, 0, 0))
    if wanted.get("calls"):
        _filter(wanted["calls"])  # type: ignore[arg-type]  # a list of numbers
    os.execvp(command[0], command)


def _write_only(folders: Sequence[str]) -> None:
    """See the whole file system read-only, but for these folders, and without changing it for others."""
    _call(libc.unshare(_NEWNS))
    run = ["mount", "--make-rprivate", "/"]
    subprocess.run(run, check=True)
    for folder in folders:
        subprocess.run(["mount", "--bind", folder, folder], check=True)
    for point in _mounted():  # /tmp is a mount of its own on many machines
        if point not in folders:
            subprocess.run(["mount", "-o", "remount,bind,ro", point], check=point == "/", capture_output=True)


def _mounted() -> list[str]:
    """Return where file systems are mounted, without those of the kernel."""
    with open("/proc/self/mountinfo", encoding="utf-8") as lines:
        points = dict.fromkeys(line.split()[4] for line in lines)
    return [point for point in points if not point.startswith(("/proc", "/sys", "/dev"))]


def _filter(numbers: Sequence[int]) -> None:
    """Let only these system calls through; any other fails with EPERM."""
    program = [
        _step(_LOAD, 0, 0, 4),
        _step(_EQUAL, 1, 0, _X86_64),
        _step(_RETURN, 0, 0, _EPERM),
        _step(_LOAD, 0, 0, 0),
    ]
    for number in numbers:
        program += [_step(_EQUAL, 0, 1, number), _step(_RETURN, 0, 0, _ALLOW)]
    program.append(_step(_RETURN, 0, 0, _EPERM))
    text = ctypes.create_string_buffer(b"".join(program))
    whole = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(text)))
    _call(libc.prctl(_SECCOMP, _FILTER, whole, 0, 0))


def _step(code: int, yes: int, no: int, value: int) -> bytes:
    return struct.pack("HBBI", code, yes, no, value)


def _call(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2:])
