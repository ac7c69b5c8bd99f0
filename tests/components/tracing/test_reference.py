"""The table of spans in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

from flask_prod.components.tracing.reference import SPANS, to_markdown

PAGE = Path(__file__).parents[3] / "docs" / "tracing.md"


def test_table_is_what_the_code_says() -> None:
    """docs/tracing.md has the table that `to_markdown` makes; test_journey.py holds real spans to it."""
    found = re.search(r"<!-- spans -->\n(.*?)<!-- /spans -->", PAGE.read_text(), re.DOTALL)

    assert found is not None
    assert found[1] == "\n".join(to_markdown()) + "\n"


def test_examples_are_of_their_kind() -> None:
    """Each row's example is what its pattern means, and no earlier row takes it."""
    for row in SPANS:
        assert next(one for one in SPANS if one.matches(row.example, row.kind)) is row
