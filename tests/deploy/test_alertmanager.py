"""Alertmanager's configuration: who is told of what, what is told only once, and no secret in any file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec import structs

from flask_prod.core.kit import state_of
from flask_prod.deploy import TARGETS, render
from flask_prod.deploy.alerts import alerts
from flask_prod.deploy.plan import Plan
from flask_prod.deploy.reading import read_plan
from sample_app import create_app
from tests.deploy.tools import program, run

SECRETS = {
    "pagerduty": ("pagerduty_configs", "routing_key_file"),
    "slack": ("slack_configs", "api_url_file"),
    "webhook": ("webhook_configs", "url_file"),
}


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Return the plan of the sample shop."""
    app = create_app({"ENVIRONMENT": "test", "DATA_DIR": str(tmp_path_factory.mktemp("shop"))})
    state = state_of(app)
    try:
        return read_plan(state, "sample_app:create_app()", "sample_app")
    finally:
        state.lifecycle.close()


@pytest.fixture
def config(rendered: Path) -> Any:
    """Return what was rendered for the sample shop."""
    return yaml.safe_load((rendered / "monitoring/alertmanager/alertmanager.yml").read_text())


def rendered_with(plan: Plan, **settings: str) -> Any:
    """Return what is rendered with other settings."""
    changed = replace(plan, deploy=structs.replace(plan.deploy, **settings))
    texts = {str(file.path): file.text for file in render(TARGETS["monitoring"], changed)}
    return yaml.safe_load(texts["alertmanager/alertmanager.yml"])


def receivers(route: dict[str, Any]) -> Iterator[str]:
    """Yield the receivers of a route and all below it."""
    yield route["receiver"]
    for one in route.get("routes", ()):
        yield from receivers(one)


def matched(rule: dict[str, Any], label: str) -> Iterator[str]:
    """Yield the values of a label that an inhibition names."""
    for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
        name, _, value = re.fullmatch(r'(\w+)(=~|!=|=)"(.*)"', matcher).groups()  # type: ignore[union-attr]  # a failed match fails the test
        if name == label:
            yield from value.split("|")


def test_routes_lead_somewhere(config: Any) -> None:
    """Each route has a receiver that exists, and each receiver a route."""
    assert set(receivers(config["route"])) == {one["name"] for one in config["receivers"]}


def test_inhibitions_know_what_they_silence(config: Any, plan: Plan) -> None:
    """Alerts, matters and severities that an inhibition names exist: a renamed alert would never be silenced."""
    found = alerts(plan)
    known = {
        "alertname": {one.name for one in found},
        "about": {one.about for one in found},
        "severity": {one.severity for one in found},
    }
    for rule in config["inhibit_rules"]:
        for label, names in known.items():
            assert set(matched(rule, label)) <= names


def test_a_warning_has_a_critical_sister(plan: Plan) -> None:
    """What is told at two limits is about one matter, so that the higher one silences the lower."""
    about = {one.name: one.about for one in alerts(plan)}

    assert about["DatabasePoolBusy"] == about["DatabasePoolExhausted"]
    assert about["JobsWaitLong"] == about["JobsWaitTooLong"]
    assert about["CertificateExpiresSoon"] == about["CertificateExpires"]
    assert len({about[name] for name in about if name.startswith("ErrorBudget")} | {about["ErrorRateHigh"]}) == 1


@pytest.mark.parametrize("pager", SECRETS)
@pytest.mark.parametrize("tickets", SECRETS)
def test_secrets_are_files(plan: Plan, pager: str, tickets: str) -> None:
    """Whoever is told, the key or address is read from a file of Alertmanager's own."""
    found = rendered_with(plan, pager=pager, tickets=tickets)
    told = {one["name"]: one for one in found["receivers"]}

    for name, chosen in (("pager", pager), ("tickets", tickets)):
        kind, key = SECRETS[chosen]
        assert told[name].keys() == {"name", kind}
        (only,) = told[name][kind]
        assert only[key] == f"/run/secrets/ALERTMANAGER_{name.upper()}"
        assert not {"routing_key", "service_key", "api_url", "url"} & only.keys()


def test_smaller_applications(plan: Plan) -> None:
    """Without jobs, Redis and database nothing is silenced on their behalf."""
    small = replace(plan, rooms=plan.rooms - {"jobs", "redis", "database", "backups", "cache"})
    (text,) = (one.text for one in render(TARGETS["monitoring"], small) if one.path.name == "alertmanager.yml")

    assert not re.search("(?i)redis|database|outbox|jobs", text)
    assert len(yaml.safe_load(text)["inhibit_rules"]) == 3


@pytest.mark.deploy
def test_amtool(rendered: Path, pytestconfig: pytest.Config) -> None:
    """Alertmanager's own tool finds nothing wrong, and sends each severity where it belongs."""
    amtool = program("amtool", pytestconfig)
    file = rendered / "monitoring/alertmanager/alertmanager.yml"

    said = run(amtool, "check-config", file)
    assert said.returncode == 0, said.stdout + said.stderr
    for labels, wanted in (
        ("severity=critical", "pager"),
        ("severity=warning", "tickets"),
        ("team=none", "tickets"),
    ):
        said = run(
            amtool, "config", "routes", "test", f"--config.file={file}", f"--verify.receivers={wanted}",
            labels, "service=shop",
        )  # fmt: skip
        assert said.returncode == 0, said.stdout + said.stderr
