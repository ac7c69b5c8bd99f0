"""Changes to files: shown as a diff, and written whole or not at all."""

from __future__ import annotations

import difflib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from .text import ByHand, Text

_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


@dataclass(frozen=True)
class Change:
    """One file as it is (None for one that is not there yet) and as it is to be."""

    path: Path
    before: bytes | None
    after: bytes
    mode: int | None = None
    """The permissions of a new file; None takes what the system gives. Those of an old one stay."""

    hidden: bool = False
    """Whether the diff must not show what is written: it holds secrets."""


def changes_of(texts: Iterable[Text]) -> list[Change]:
    """Return what has changed in *texts*; those that stay as they are make no change."""
    made = [Change(text.path, text.before, text.result()) for text in texts]
    return [change for change in made if change.before != change.after]


def diff(change: Change, root: Path) -> Iterator[str]:
    """Yield the lines of a unified diff, coloured; line ends are not shown."""
    name = os.path.relpath(change.path.resolve(), root.resolve())
    if change.hidden:
        yield click.style(f"+++ b/{name}", bold=True)
        yield click.style("(a new file with secrets, which are not shown)", fg="cyan")
        return
    old, new = (_lines(content) for content in (change.before or b"", change.after))
    before = "/dev/null" if change.before is None else f"a/{name}"
    for line in difflib.unified_diff(old, new, before, f"b/{name}", lineterm=""):
        heading = line.startswith(("--- ", "+++ "))
        yield click.style(line, bold=True) if heading else click.style(line, fg=_COLOURS.get(line[:1]))


def write(changes: Iterable[Change]) -> None:
    """Write all files: each beside its place first, and put there only when all could be written.

    ByHand when one has changed since it was read; OSError when the disk says no, and then nothing has changed.
    """
    ready: list[tuple[Path, Path]] = []
    try:
        for change in changes:
            path = Path(os.path.realpath(change.path))
            current = path.read_bytes() if path.exists() else None
            if current != change.before:
                raise ByHand(f"{change.path} has changed meanwhile; nothing was written. Run the command again.")
            ready.append((_beside(path, change), path))
        for temporary, path in ready:
            temporary.replace(path)
    finally:
        for temporary, _ in ready:
            temporary.unlink(missing_ok=True)


def _beside(path: Path, change: Change) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(change.after)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copystat(path, name)
            os.utime(name)  # the date is that of the change: reloaders and make look at it
        else:
            os.chmod(name, change.mode if change.mode is not None else _usual())
    except BaseException:
        os.unlink(name)
        raise
    return Path(name)


def _usual() -> int:
    """Return the permissions that the user's umask gives a new file."""
    mask = os.umask(0)
    os.umask(mask)
    return stat.S_IMODE(0o666 & ~mask)


def _lines(content: bytes) -> list[str]:
    return (
        [line.rstrip("\r") for line in content.decode("utf-8", "replace").rstrip("\n").split("\n")]
        if content
        else []
    )
