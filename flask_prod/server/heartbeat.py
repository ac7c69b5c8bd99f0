"""Heartbeats of workers where no file can be made: in a container without a single writable directory."""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any

from gunicorn.workers import base


class MemoryHeartbeat:
    """Does what gunicorn's own does with a file: its time of change is the last sign of life."""

    def __init__(self, _cfg: Any) -> None:
        self._file = open(os.memfd_create("flask-prod-heartbeat"), "w+b", buffering=0)  # noqa: SIM115  # see close
        self.notify()

    def notify(self) -> None:
        """Give a sign of life, on the monotonic clock as gunicorn reads it."""
        now = time.monotonic()
        os.utime(self._file.fileno(), (now, now))

    def last_update(self) -> float:
        """Return when the last sign of life was."""
        return os.fstat(self._file.fileno()).st_mtime

    def fileno(self) -> int:
        """Return the descriptor; ValueError when it is closed."""
        return self._file.fileno()

    def close(self) -> None:
        """Give the memory back."""
        self._file.close()


def use_memory_if_needed(cfg: Any) -> bool:
    """Let gunicorn keep heartbeats in memory where it could make no file; tell whether that was needed."""
    try:
        with tempfile.TemporaryFile(dir=cfg.worker_tmp_dir):
            return False
    except OSError:
        if not hasattr(os, "memfd_create"):
            return False
        base.WorkerTmp = MemoryHeartbeat
        return True
