"""Variables in profile files: what is filled in, what is left alone, and what is said of one that is missing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_prod.core.templates import Missing, expand

PLACES: list[dict[str, Any]] = [{"HOST": "db", "EMPTY": ""}, {"HOST": "never", "PORT": 5432}]


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain $HOST $ {} 100%", "plain $HOST $ {} 100%"),
        ("${HOST}:${PORT}", "db:5432"),
        ("${EMPTY}", ""),
        ("${NONE:-default}/${EMPTY:-x}/${HOST:-y}", "default/x/db"),
        ("${NONE:-}", ""),
        ("${NONE:-a:b/c}", "a:b/c"),
        ("${HOST:?say where}", "db"),
        ("$${HOST} and ${HOST}", "${HOST} and db"),
        ("$${", "${"),
    ],
)
def test_forms(template: str, text: str) -> None:
    """Each form is filled in from the first place that has the variable, or left alone."""
    assert expand(template, PLACES) == text


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("${NONE}", "the variable NONE, which is not set"),
        ("${NONE:?write it into .env}", "the variable NONE, which is not set: write it into .env"),
        ("${EMPTY:?}", "the variable EMPTY, which is not set"),
        ("${", "no variable"),
        ("${HOST", "no variable"),
        ("${1}", "no variable"),
        ("${HOST:+x}", "no variable"),
    ],
)
def test_what_cannot_be_filled_in(template: str, why: str) -> None:
    """A missing variable and a slip of the pen are told apart, and no value is in the message."""
    with pytest.raises(Missing) as caught:
        expand(f"hunter2 {template}", PLACES)

    assert why in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_depth() -> None:
    """Lists and tables are gone through; numbers and booleans stay what they are."""
    template = {"a": ["${HOST}", 1, True], "b": {"c": "${PORT}"}, "d": None}

    assert expand(template, PLACES) == {"a": ["db", 1, True], "b": {"c": "5432"}, "d": None}


@given(st.text())
def test_values_are_never_expanded(secret: str) -> None:
    """Whatever a variable holds, also what looks like a variable, is put in as it is."""
    assert expand("<${A}>", [{"A": secret, "B": "x"}]) == f"<{secret}>"
