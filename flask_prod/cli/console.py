"""Lines of several processes on one terminal, each behind its name."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from itertools import cycle
from typing import TextIO

import click

_COLOURS = ("cyan", "magenta", "blue", "yellow", "green")


class Console:
    """Writes `name | line`; names are coloured on a terminal, unless NO_COLOR is set."""

    def __init__(self, names: Collection[str], stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._width = max(map(len, names))
        self._colours = dict(zip(names, cycle(_COLOURS), strict=False)) if self._colourful() else {}

    def say(self, name: str, text: str) -> None:
        """Write one line; BrokenPipeError when nobody reads any more."""
        label = f"{name.ljust(self._width)} |"
        colour = self._colours.get(name)
        if colour:
            label = click.style(label, fg=colour)
        try:
            self._stream.write(f"{label} {text}\n")
            self._stream.flush()
        except BrokenPipeError:
            self._give_up()
            raise

    def _give_up(self) -> None:
        """Send to nowhere what is still buffered: Python would fail on it once more, at its own end."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def _colourful(self) -> bool:
        return self._stream.isatty() and not os.environ.get("NO_COLOR")
