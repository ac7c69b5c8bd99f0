"""The findings in docs/check.md, made of the rules: `python -m flask_prod.review.reference docs/check.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from .audit import EXPOSURES
from .rules.catalogue import AREAS, SUMS

BEGIN = "<!-- made by python -m flask_prod.review.reference -->"


def page(before: str) -> str:
    """Return the page with everything behind the mark made anew."""
    head = before.partition(BEGIN)[0]
    return head + BEGIN + "\n\n" + "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    for area, rules in AREAS.items():
        yield f"## {area}\n"
        for one in rules:
            asked = ", asked with `--online`" if one.online else ""
            yield from _entry(one.id, f"{one.severity}{asked}", one.title, one.meaning, one.remedy)
    yield "## Time limits and pools\n"
    yield "Each finding has its numbers and its remedy; [shutdown](shutdown.md) explains the sums.\n"
    for id, title in SUMS.items():
        yield f'<a id="{id.lower()}"></a>\n**{id}** {title}.\n'
    yield "## The audit\n"
    for exposure in EXPOSURES:
        yield from _entry(exposure.id, exposure.severity, exposure.title, exposure.meaning, exposure.remedy)


def _entry(id: str, kind: str, title: str, meaning: str, remedy: str) -> Iterator[str]:
    yield f'<a id="{id.lower()}"></a>\n### {id} {title}\n'
    yield f"*{kind}*. {meaning}\n"
    yield f"Do: {_code(remedy)}\n"


def _code(text: str) -> str:
    """Return a remedy as Markdown keeps it: a `*` or `<` of it is no markup."""
    return text.replace("*", r"\*").replace("<", r"\<")


def main() -> None:
    """Write the page that is named on the command line."""
    path = Path(sys.argv[1])
    path.write_text(page(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
