"""Which directory the processes of a service share, and how a job worker finds it.

Web workers get it from gunicorn's master by PROMETHEUS_MULTIPROC_DIR, a new one for each life of the server, and
leave word of it in the service's run directory. It is not simply below that: two servers of one service on one
host (two ports, two versions during a deploy) are scraped each by itself, and must not show one another's numbers.
"""

from __future__ import annotations

import os
from pathlib import Path

from flask_prod.core.run_dir import run_dir
from flask_prod.core.settings import ServiceSettings

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
"""The variable of prometheus_client that names the directory which several processes share."""

_WORD = "metrics-directory"


class Place:
    """The metrics directory of one service on this host."""

    def __init__(self, service: ServiceSettings, root_path: str) -> None:
        self._service = service
        self._root_path = root_path

    def folder(self) -> Path | None:
        """Return the service's run directory; None where none can be written."""
        return run_dir(self._service, self._root_path)

    def given(self) -> Path | None:
        """Return the directory that this process was started with."""
        named = os.environ.get(MULTIPROCESS)
        return Path(named) if named else None

    def publish(self) -> None:
        """Leave word of this process's directory, unless that of another server that lives is there."""
        given = self.given()
        if given is None or self.of_the_web() is not None:
            return
        folder = self.folder()
        if folder is None:
            return
        draft = folder / f"{_WORD}.{os.getpid()}"
        draft.write_text(str(given.absolute()))
        draft.replace(folder / _WORD)

    def of_the_web(self) -> Path | None:
        """Return the directory that a web server of this service keeps now; None where none runs."""
        folder = self.folder()
        try:
            found = Path((folder / _WORD).read_text()) if folder else None
        except (OSError, ValueError):
            return None
        return found if found is not None and found.is_absolute() and found.is_dir() else None
