"""The page docs/traps.md, and that the traps bite."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .record import HEAD, PAGE, outcomes, surprises, traps

ROWS = """
01 02 03 04 06 07 09 10 11 14 15 16 18 19 21 22 23 24 25 26 27 28 29 30 31 33 35 36 37 38 39 42 44 46 48 50 51 52
55 56 57 59 60 61 62 65 66
"""
"""Every trap that was found and reproduced."""


def test_page_lists_every_trap() -> None:
    """docs/traps.md has a row for each trap test, and each says what its test says."""
    text = PAGE.read_text()
    listed = re.findall(r"^\| (\d\d) \| .* \| \[(\w+)\]\(\.\./tests/traps/(\w+)\.py\) \|$", text, re.MULTILINE)

    assert text.startswith(HEAD)
    assert listed == [(trap.id, trap.name, trap.module) for trap in traps()]
    assert all(trap.promise in text for trap in traps())
    assert "**fails**" not in text


def test_every_trap_has_a_test() -> None:
    """No known trap is without a test."""
    assert {trap.id for trap in traps()} == set(ROWS.split())


@pytest.mark.faults
def test_traps_bite(tmp_path: Path) -> None:
    """By hand every trap test fails, but for those of what works by hand."""
    by_hand = outcomes(tmp_path, "--by-hand")

    assert set(by_hand) == {trap.name for trap in traps()}
    assert not surprises(by_hand, {})
