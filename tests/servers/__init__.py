"""Real servers for the suite, on free ports, as root or not, each gone at the end.

Each is started by `start()` and gone after `stop()`, `with`, or the death of this process. Start them from the
main thread: the kernel ends a bound process with the *thread* that started it.
"""

from __future__ import annotations

from .process import (
    HOST,
    NOBODY,
    PREFIX,
    TEMP,
    Process,
    Server,
    alive,
    children,
    free_port,
    remove_abandoned,
    wait_for,
)
from .sinks import FaultProxy, HttpSink, Received, SinkHandler
from .stores import Postgres, Valkey, package_folder, valkey_binary
from .web import Answer, Gunicorn

__all__ = [
    "HOST",
    "NOBODY",
    "PREFIX",
    "TEMP",
    "Answer",
    "FaultProxy",
    "Gunicorn",
    "HttpSink",
    "Postgres",
    "Process",
    "Received",
    "Server",
    "SinkHandler",
    "Valkey",
    "alive",
    "children",
    "free_port",
    "package_folder",
    "remove_abandoned",
    "valkey_binary",
    "wait_for",
]
