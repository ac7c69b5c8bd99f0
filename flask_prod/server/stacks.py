"""What a stuck worker was doing: the stacks of all its threads, in one line of the log.

gunicorn sends SIGABRT to a worker without a heartbeat, and SIGKILL a second later. Just before, the master sends a
signal of ours, which the interpreter's own fault handler answers at once, also while some extension holds the
interpreter's lock. It writes places in the code, never values, and into memory that the master made before the
fork, since the worker may not live to send it.
"""

from __future__ import annotations

import faulthandler
import os
import signal
from contextlib import suppress
from typing import Any

SIGNAL = int(signal.SIGRTMIN) + 5 if hasattr(signal, "SIGRTMIN") else 0
"""Not SIGABRT itself, which the fault handler would take from gunicorn."""

_LONGEST = 20_000
"""Characters that are logged; a hundred threads have more."""


def prepare(worker: Any) -> None:
    """In the master, before the fork: make the memory."""
    with suppress(OSError, AttributeError):  # neither a Linux nor a file system would be a reason not to serve
        worker.prod_stacks = os.memfd_create("flask-prod-stacks")


def watch(worker: Any) -> None:
    """In a worker that is about to serve: write the stacks when the master asks."""
    memory = getattr(worker, "prod_stacks", None)
    if memory is not None and SIGNAL:
        faulthandler.register(SIGNAL, file=memory, all_threads=True)


def ask(pid: int) -> None:
    """In the master: let a worker that has called `watch` write its stacks; any other would end by it."""
    if SIGNAL:
        with suppress(ProcessLookupError):
            os.kill(pid, SIGNAL)


def tell(server: Any, worker: Any) -> None:
    """In the master, after the worker's end: log what it was doing if it was stuck, and free the memory."""
    memory = getattr(worker, "prod_stacks", None)
    if memory is None:
        return
    worker.prod_stacks = None
    with suppress(OSError):
        found = os.pread(memory, 4 * _LONGEST, 0).decode("utf-8", "replace").strip()
        os.close(memory)
        if found:
            server.log.critical(
                "Worker %s gave no heartbeat for %s s; what its threads did, the latest call first:\n%s",
                worker.pid, server.cfg.timeout, found[:_LONGEST], extra={"event": "prod.worker.stuck"},
            )  # fmt: skip


def forget(server: Any, worker: Any) -> None:
    """In a new worker: let go of the memory of the others."""
    for other in server.WORKERS.values():
        memory = getattr(other, "prod_stacks", None)
        if memory is not None and other is not worker:
            with suppress(OSError):
                os.close(memory)
            other.prod_stacks = None
