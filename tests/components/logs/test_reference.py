"""The reference in docs/logs.md says what the code does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flask_prod.components.logs.lines import LogLine, RequestLine
from flask_prod.components.logs.reference import events, sentences, write

PAGE = Path(__file__).parents[3] / "docs" / "logs.md"


def test_page_is_current(tmp_path: Path) -> None:
    """The page is what `python -m flask_prod.components.logs.reference docs/logs.md` makes of it."""
    copy = tmp_path / "logs.md"
    shutil.copy(PAGE, copy)
    write(copy)

    assert copy.read_text() == PAGE.read_text()


@pytest.mark.parametrize("kind", [RequestLine, LogLine])
def test_every_field_has_a_sentence(kind: type[RequestLine] | type[LogLine]) -> None:
    """No field of a line is left without a word."""
    assert [name for name, _ in sentences(kind)] == list(kind.__struct_fields__)
    assert all(text.endswith(".") for _, text in sentences(kind))


def test_events() -> None:
    """Events are found wherever a room, the core or the server names them, under who emits them."""
    assert events()["prod.redis.degraded"] == "redis"
    assert events()["prod.log.level_changed"] == "logs"
    assert events()["prod.worker.stuck"] == "server"
    assert events()["prod.process.closed"] == "core"


def test_page_without_marks(tmp_path: Path) -> None:
    """A page without the marks is left alone."""
    page = tmp_path / "page.md"
    page.write_text("nothing")

    with pytest.raises(ValueError, match="has no"):
        write(page)
