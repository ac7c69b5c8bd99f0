"""docs/check.md has every finding, and says what the code says."""

from __future__ import annotations

import re
from pathlib import Path

from flask_prod.review.audit import EXPOSURES
from flask_prod.review.reference import page
from flask_prod.review.rules.catalogue import AREAS, RULES, SUMS
from flask_prod.server import sums

PAGE = Path(__file__).parents[2] / "docs" / "check.md"


def test_page() -> None:
    """The page is what `python -m flask_prod.review.reference docs/check.md` makes of it."""
    text = PAGE.read_text(encoding="utf-8")

    assert page(text) == text
    for id in (*(rule.id for rule in RULES), *SUMS, *(exposure.id for exposure in EXPOSURES)):
        assert f'<a id="{id.lower()}"></a>' in text


def test_ids() -> None:
    """An id stands for one rule, in its area's hundred; each has a meaning and a remedy."""
    ids = [rule.id for rule in RULES]

    assert len(set(ids)) == len(ids)
    for number, rules in enumerate(AREAS.values()):
        assert all(re.fullmatch(rf"P{number}\d\d", rule.id) for rule in rules)
    assert all(rule.meaning and rule.remedy and not rule.title.endswith(".") for rule in RULES)


def test_sums_are_named() -> None:
    """Every sum of time limits and pools has a title here."""
    source = Path(sums.__file__).read_text(encoding="utf-8")

    assert set(re.findall(r'"(B\d\d)"', source)) == set(SUMS)
