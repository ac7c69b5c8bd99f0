"""`python -m tests.traps.record`: spring every trap on both applications and write docs/traps.md."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "traps.md"
WORKS_BY_HAND = frozenset({"59", "60", "65"})
"""The rows that are no traps: they work by hand and have to go on working."""

HEAD = """# Traps

Made by `make traps`; a test compares the list. Each row is one test, which runs the same scenario over HTTP
against two applications: one with a kit, and one composed by hand from the same libraries as their READMEs say
([bench/by_hand.py](../bench/by_hand.py)). "By hand" is how the test failed there.

```bash
pytest tests/traps              # the kit: all pass
pytest tests/traps --by-hand    # the libraries by hand: all fail, but for the rows that work by hand
```

| id | what goes wrong by hand | by hand | with the kit | test |
|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Trap:
    """One test of a trap."""

    id: str
    module: str
    name: str
    goes_wrong: str
    promise: str


def traps() -> list[Trap]:
    """Return every trap test, by number."""
    found = []
    for path in sorted(HERE.glob("test_*.py")):
        module = importlib.import_module(f"{__package__}.{path.stem}")
        for name, function in vars(module).items():
            match = re.match(r"test_trap_(\d\d)_", name)
            if match and function.__module__ == module.__name__:
                found.append(Trap(match[1], path.stem, name, _goes_wrong(function), _promise(function)))
    return sorted(found, key=lambda trap: (trap.id, trap.name))


def _goes_wrong(function: Callable[..., Any]) -> str:
    marks = [mark for mark in getattr(function, "pytestmark", ()) if mark.name == "trap"]
    if not marks:
        raise LookupError(f"{function.__name__} has no pytest.mark.trap")
    return str(marks[0].args[0])


def _promise(function: Callable[..., Any]) -> str:
    return (function.__doc__ or "").strip().partition("\n")[0]


def outcomes(folder: Path, *options: str) -> dict[str, str]:
    """Run the traps in a process of their own; return test name -> how it failed, empty when it passed."""
    report = folder / "report.xml"
    command = [
        sys.executable, "-m", "pytest", str(HERE), "-q", "-k", "test_trap_", "-p", "no:cacheprovider",
        f"--junitxml={report}", f"--basetemp={folder / 'pytest'}", *options,
    ]  # fmt: skip
    subprocess.run(command, cwd=ROOT, capture_output=True, timeout=600, check=False)
    seen: dict[str, list[str]] = defaultdict(list)
    for case in ElementTree.parse(report).iter("testcase"):
        name = case.attrib["name"].partition("[")[0]
        failed = [one for one in case if one.tag in ("failure", "error")]
        seen[name].append(_reason(failed[0].attrib["message"]) if failed else "")
    return {name: next(filter(None, reasons), "") for name, reasons in seen.items()}


def _reason(message: str) -> str:
    first = message.partition("\n")[0]
    return first.removeprefix("AssertionError: ") or "fails"


def page(by_hand: Mapping[str, str], kit: Mapping[str, str]) -> str:
    """Write the page."""
    rows = []
    for trap in traps():
        seen = _cell(by_hand[trap.name]) if by_hand[trap.name] else "works"
        held = f"**fails**: {_cell(kit[trap.name])}" if kit[trap.name] else trap.promise
        test = f"[{trap.name}](../tests/traps/{trap.module}.py)"
        rows.append(f"| {trap.id} | {_cell(trap.goes_wrong)} | {seen} | {held} | {test} |\n")
    return HEAD + "".join(rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


def surprises(by_hand: Mapping[str, str], kit: Mapping[str, str]) -> list[str]:
    """Return what should not be: a trap that the kit falls into, or one that does not bite."""
    found = [f"{name} fails with the kit: {reason}" for name, reason in kit.items() if reason]
    for trap in traps():
        works = not by_hand[trap.name]
        if works != (trap.id in WORKS_BY_HAND):
            found.append(f"{trap.name} {'does not bite' if works else 'fails'} by hand: {by_hand[trap.name]}")
    return found


def main() -> None:
    """Run both, write the page, and say what should not be."""
    with tempfile.TemporaryDirectory(prefix="traps-") as folder:
        by_hand = outcomes(Path(folder), "--by-hand")
        kit = outcomes(Path(folder))
    PAGE.write_text(page(by_hand, kit))
    wrong = surprises(by_hand, kit)
    print(f"{len(kit)} traps; written to {PAGE.relative_to(ROOT)}", *wrong, sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
