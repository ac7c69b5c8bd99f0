"""`flask prod settings`, and the settings page made by it."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from flask_prod.cli import prod

PAGE = Path(__file__).parent.parent.parent / "docs" / "settings.md"


def run(*words: str) -> str:
    """Run `flask prod settings` and return its output."""
    result = CliRunner().invoke(prod, ["settings", *words])
    assert result.exit_code == 0, result.output
    return result.output


def test_page_is_current() -> None:
    """docs/settings.md is what the code says: `flask prod settings --markdown > docs/settings.md`."""
    assert PAGE.read_text() == run("--markdown")


def test_table() -> None:
    """A prefix shows the settings that begin so, with default and sentence."""
    output = run("HEALTH_T")

    assert output.splitlines()[0].startswith("health: ")
    assert "HEALTH_TIMEOUT" in output
    assert "2s" in output
    assert "HEALTH_PATH" not in output


def test_json() -> None:
    """--json lists rooms with their settings."""
    rooms = {room["room"]: room for room in json.loads(run("--json"))}

    assert {"service", "health", "server"} <= set(rooms)
    assert rooms["health"]["settings"][0]["key"] == "HEALTH_PATH"


def test_unknown_prefix() -> None:
    """A prefix that fits nothing is told."""
    result = CliRunner().invoke(prod, ["settings", "NOTHING"])

    assert result.exit_code == 1
    assert "No setting begins with NOTHING" in result.output


def test_every_setting_has_a_sentence() -> None:
    """No setting of any room goes without its sentence, which ends in a full stop."""
    settings = [setting for room in json.loads(run("--json")) for setting in room["settings"]]

    assert [setting["key"] for setting in settings if not setting["sentence"].endswith(".")] == []
