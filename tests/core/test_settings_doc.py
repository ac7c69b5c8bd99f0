"""The settings as a reader sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from msgspec import Meta

from flask_prod.core.settings import Section
from flask_prod.core.settings_doc import SettingDoc, describe, sentences, to_markdown
from flask_prod.core.values import Duration, Secret, Size


class Base(Section, frozen=True, kw_only=True):
    """What two rooms share."""

    shared: int = 1
    """Inherited."""


class Room(Base, frozen=True, kw_only=True):
    """A room of the tests.

    More of it.
    """

    prefix: ClassVar[str] = "ROOM_"
    keys: ClassVar[Mapping[str, tuple[str, ...]]] = {"named": ("NAMED", "OTHER")}
    library_keys: ClassVar[tuple[str, ...]] = ("LIB_*",)

    ttl: Duration = 300.0
    """How long:
    one sentence over two lines."""

    pause: Duration | None = None
    """Optional."""

    blink: Duration = 0.25
    """Short."""

    size: Size = 16 * 1024**2
    """How large."""

    on: bool = True
    """A switch | with a bar."""

    names: tuple[str, ...] = ("a", "b")
    """A list."""

    key: Secret = Secret("")
    """A secret."""

    count: Annotated[int, Meta(ge=1, le=5)] = 2
    """Bounded."""

    named: str = ""
    bare: str = "x"


def row(key: str) -> SettingDoc:
    """Return what is said of one setting."""
    return next(setting for setting in describe("room", Room).settings if setting.key == key)


def test_sentences() -> None:
    """The text under a field is its sentence, on one line, also of inherited fields; without one there is none."""
    found = sentences(Room)

    assert found["shared"] == "Inherited."
    assert found["ttl"] == "How long: one sentence over two lines."
    assert "bare" not in found
    assert "prefix" not in found


def test_defaults() -> None:
    """Defaults are shown as a user would type them."""
    assert row("ROOM_TTL").default == "5m"
    assert row("ROOM_BLINK").default == "250ms"
    assert row("ROOM_PAUSE").default == ""
    assert row("ROOM_SIZE").default == "16MB"
    assert row("ROOM_ON").default == "true"
    assert row("ROOM_NAMES").default == "a, b"
    assert row("ROOM_KEY").default == ""
    assert row("ROOM_SHARED").default == "1"


def test_kinds_and_names() -> None:
    """The kind is said in words, and other names are kept."""
    assert row("ROOM_COUNT").kind == "a whole number from 1 to 5"
    assert row("NAMED").others == ("OTHER",)


def test_markdown() -> None:
    """Each room is a heading and a table whose cells cannot break it."""
    page = to_markdown([describe("room", Room)])

    assert "\n## room\n\nA room of the tests.\n" in page
    assert "| `NAMED` or `OTHER` | text | none |  |" in page
    assert "A switch \\| with a bar." in page
    assert "honoured as they are: `LIB_*`." in page
    assert page.endswith("\n")


def test_without_source() -> None:
    """A section made at run time has no sentences, and that is no error."""
    made: type[Section] = type("Made", (Section,), {"__annotations__": {"x": int}, "x": 1})

    assert sentences(made) == {}
    assert describe("made", made).settings[0].key == "X"
