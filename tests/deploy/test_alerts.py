"""Prometheus' rules: each alert fires where it must, is quiet where it must, and leads to a page that helps."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import click
import pytest
import yaml
from flask.cli import ScriptInfo
from msgspec import structs

from flask_prod.cli.group import prod
from flask_prod.core.kit import state_of
from flask_prod.deploy.alerts import CRITICAL, WARNING, Alert, Topic, alerts, files
from flask_prod.deploy.plan import Plan
from flask_prod.deploy.reading import read_plan
from flask_prod.deploy.render import render
from flask_prod.deploy.targets import PAGES, TARGETS
from sample_app import create_app
from tests.deploy.conftest import ROOT
from tests.deploy.tools import program, run

RUNBOOKS = ROOT / "docs" / "runbooks"
ROOMS_OF = {
    "database": ("DatabasePoolBusy", "DatabaseRefuses"),
    "backups": ("BackupTooOld", "NoBackup"),
    "redis": ("RedisFailures",),
    "cache": ("CacheMissesHigh",),
    "jobs": ("JobsFail", "NoJobWorkers", "OutboxOld", "ScheduleMissed"),
    "ratelimit": ("ManyRequestsLimited",),
    "health": ("ServiceUnhealthy", "CertificateExpires"),
    "logs": ("LogLinesDropped",),
}


@pytest.fixture(scope="module")
def shop_plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Return the plan of the sample shop, whose files are in this repository."""
    app = create_app({"ENVIRONMENT": "test", "DATA_DIR": str(tmp_path_factory.mktemp("shop"))})
    state = state_of(app)
    try:
        return read_plan(state, "sample_app:create_app()", "sample_app")
    finally:
        state.lifecycle.close()


@pytest.fixture(scope="module")
def plan(shop_plan: Plan) -> Plan:
    """Return a plan with replicas beside, so that no alert is left out."""
    return replace(shop_plan, values={**shop_plan.values, "DATABASE_REPLICA_URLS": "set"})


def test_each_alert_says_what_is_needed(plan: Plan) -> None:
    """An alert calls somebody or waits for the morning, is told apart, and has words for whoever is called."""
    found = alerts(plan)

    assert [name for name, count in Counter(one.name for one in found).items() if count > 1] == []
    for one in found:
        assert one.severity in (CRITICAL, WARNING)
        assert one.summary
        assert one.description.endswith(".")
        assert one.about
        assert one.fires.series, "a test without series proves nothing"
        assert one.quiet.series, "a test without series proves nothing"


def test_rendered_rules(rendered: Path, shop_plan: Plan) -> None:
    """The files of Prometheus have all alerts, with severity, service and runbook."""
    paths = sorted((rendered / "monitoring/prometheus/rules").glob("*.yml"))
    rules = [
        rule for path in paths for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]
    ]
    written = {rule["alert"]: rule for rule in rules if "alert" in rule}

    assert set(written) == {one.name for one in alerts(shop_plan)}
    for name, rule in written.items():
        assert rule["labels"].keys() == {"severity", "service", "about"}
        assert rule["labels"]["service"] == "shop"
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
        assert rule["annotations"]["runbook_url"].endswith(f".md#{name.lower()}")


def test_one_document_for_kubernetes(plan: Plan) -> None:
    """A PrometheusRule has the groups of all files."""
    whole = yaml.safe_load(files.all_groups(plan))["groups"]
    parts = [
        group
        for path, text in files.rule_files(plan).items()
        if "/rules/" in path
        for group in yaml.safe_load(text)["groups"]
    ]
    assert whole == parts


@pytest.mark.parametrize("room", ROOMS_OF)
def test_rooms_that_are_not_there(plan: Plan, room: str) -> None:
    """A room that an application leaves out has no alerts: they could never fire."""
    without = {one.name for one in alerts(replace(plan, rooms=plan.rooms - {room}))}

    assert set(ROOMS_OF[room]) <= {one.name for one in alerts(plan)}
    assert without.isdisjoint(ROOMS_OF[room])


def test_settings_are_limits(plan: Plan) -> None:
    """What the settings call too long, too old or good enough is what alerts go by."""
    values = {**plan.values, "JOBS_WARN_AGE": 120.0, "JOBS_OUTBOX_WARN": 30.0, "BACKUP_MAX_AGE": 7200.0}
    changed = replace(plan, values=values, deploy=structs.replace(plan.deploy, slo=0.99))
    limits = {one.name: one.limit for one in alerts(changed)}

    assert limits["JobsWaitLong"] == 120
    assert limits["OutboxOld"] == 30
    assert limits["BackupTooOld"] == 7200
    assert limits["ErrorBudgetBurnFast"] == pytest.approx(0.144)
    assert limits["ErrorBudgetBurnCreeping"] == pytest.approx(0.01)


def test_runbooks(plan: Plan) -> None:
    """Each alert has a section of a runbook, and each section of a runbook an alert."""
    wanted = {(one.page, one.name) for one in alerts(plan)}
    written = {
        (path.stem, heading)
        for path in RUNBOOKS.glob("*.md")
        if path.stem != "README"
        for heading in re.findall(r"^## (\S+)$", path.read_text(), re.MULTILINE)
    }
    assert written == wanted
    index = (RUNBOOKS / "README.md").read_text()
    for page, name in wanted:
        assert f"({page}.md#{name.lower()})" in index


@pytest.mark.parametrize("section", ["Means", "Impact", "Look", "Mitigate", "Fix", "Escalate"])
def test_sections_of_runbooks(plan: Plan, section: str) -> None:
    """Whoever is called finds the same parts in the same order for each alert."""
    for path in RUNBOOKS.glob("*.md"):
        if path.stem == "README":
            continue
        for part in path.read_text().split("\n## ")[1:]:
            assert f"\n**{section}.** " in part, f"{path.name}: {part.splitlines()[0]}"


def test_commands_of_runbooks(tmp_path: Path) -> None:
    """Each command that a runbook names exists: nobody learns at night that it was renamed."""
    text = "".join(path.read_text() for path in RUNBOOKS.glob("*.md"))
    named = set(re.findall(r"`flask prod ([a-z -]+?)(?= [A-Z]| --|`)", text))
    assert len(named) > 20

    app = create_app({"ENVIRONMENT": "test", "DATA_DIR": str(tmp_path), "JOBS_OUTBOX": "always"})
    try:
        with click.Context(prod, obj=ScriptInfo(create_app=lambda: app)) as context:
            assert [words for words in sorted(named) if not exists(context, words.split())] == []
    finally:
        state_of(app).lifecycle.close()


def exists(context: click.Context, words: list[str]) -> bool:
    """Tell whether these words are a command, perhaps with arguments."""
    found: click.Command | None = prod
    for word in words:
        if isinstance(found, click.Group):
            found = found.get_command(context, word)
    return found is not None


def test_settings_of_runbooks(plan: Plan) -> None:
    """Each setting that a runbook names exists."""
    known = (ROOT / "docs" / "settings.md").read_text()
    text = "".join(path.read_text() for path in RUNBOOKS.glob("*.md"))

    for name in set(re.findall(r"\b(?:[A-Z]+_)+[A-Z]+\b", text)) - {"REQUEST_ID"}:
        assert f"`{name}`" in known, name


def test_nothing_to_watch(plan: Plan) -> None:
    """Without metrics there is nothing that could be asked, and an objective can be too low to be alerted on."""
    assert files.rule_files(replace(plan, rooms=plan.rooms - {"metrics"})) == {}
    low = {one.name for one in alerts(replace(plan, deploy=structs.replace(plan.deploy, slo=0.9)))}
    assert {name for name in low if name.startswith("ErrorBudget")} == {
        "ErrorBudgetBurnQuick", "ErrorBudgetBurnSlow", "ErrorBudgetBurnCreeping",
    }  # fmt: skip


def test_runbook_base(plan: Plan) -> None:
    """Alerts lead to the pages that are written into the project, or to where DEPLOY_RUNBOOKS says."""

    def rendered(runbooks: str, *less: str) -> dict[str, str]:
        deploy = structs.replace(plan.deploy, runbooks=runbooks)
        there = replace(plan, deploy=deploy, rooms=plan.rooms.difference(less))
        return {str(file.path): file.text for file in render(TARGETS["monitoring"], there)}

    written = rendered("")
    assert 'runbook_url: "docs/runbooks/instances.md#instancedown"' in written["prometheus/rules/instances.yml"]
    assert {f"runbooks/{page}.md" for page in PAGES} <= set(written)
    small = rendered("", "database", "backups", "jobs")
    assert set(written) - set(small) >= {"runbooks/jobs.md", "runbooks/database.md"}
    assert "(jobs.md" not in small["runbooks/README.md"]
    elsewhere = rendered("https://wiki.example.com/ops/")
    assert "https://wiki.example.com/ops/instances.md#instancedown" in elsewhere["prometheus/rules/instances.yml"]
    assert not any(path.startswith("runbooks/") for path in elsewhere)


@pytest.mark.deploy
def test_promtool_check(rendered: Path, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """promtool has nothing to say against configuration and rules."""
    promtool = program("promtool", pytestconfig)
    text = (rendered / "monitoring/prometheus/prometheus.yml").read_text()
    (tmp_path / "token").write_text("a-token")
    (tmp_path / "prometheus.yml").write_text(text.replace("/run/secrets/METRICS_TOKEN", str(tmp_path / "token")))
    (tmp_path / "rules").symlink_to(rendered / "monitoring/prometheus/rules")

    said = run(promtool, "check", "config", "--lint=all", "--lint-fatal", tmp_path / "prometheus.yml")
    assert said.returncode == 0, said.stdout + said.stderr
    said = run(promtool, "check", "rules", "--lint=all", "--lint-fatal", *(tmp_path / "rules").glob("*.yml"))
    assert said.returncode == 0, said.stdout + said.stderr


@pytest.mark.deploy
def test_alerts_fire_and_are_quiet(plan: Plan, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Each alert fires close above its limit, with the words it should have, and is quiet close below."""
    good, said = unit_tests(plan, tmp_path, pytestconfig)
    assert good, said


@pytest.mark.deploy
@pytest.mark.parametrize("which", ["fires", "is quiet"])
def test_each_limit_is_tested(
    plan: Plan, tmp_path: Path, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    """A limit that is moved by more than the cases are away from it makes the case of that alert fail."""
    firing, test = which == "fires", files._test
    monkeypatch.setattr(files, "_group", changed_group(files._group, laxer if firing else stricter))
    monkeypatch.setattr(files, "_test", lambda *what, fires: test(*what, fires=fires) if fires == firing else ())

    _, said = unit_tests(plan, tmp_path, pytestconfig)

    red = set(re.findall(rf"name: (\w+) {which}", said))
    limited = {one.name for one in alerts(plan) if firing or not one.values[0].startswith("absent(")}
    assert limited - red == set()


def unit_tests(plan: Plan, folder: Path, config: pytest.Config) -> tuple[bool, str]:
    """Run the unit tests of all rules, two files at a time; return whether all are good, and what was said."""
    promtool = program("promtool", config)
    for path, text in files.rule_files(plan).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    tests = sorted((folder / "prometheus/tests").glob("*.yml"), key=lambda path: -path.stat().st_size)
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda path: run(promtool, "test", "rules", path), tests))
    return not any(one.returncode for one in done), "".join(one.stdout + one.stderr for one in done)


def laxer(alert: Alert) -> Alert:
    """Return an alert that must not fire any more where it should."""
    return moved(alert, up=alert.compare.startswith(">"))


def stricter(alert: Alert) -> Alert:
    """Return an alert that must fire where it should be quiet."""
    return moved(alert, up=alert.compare.startswith("<"))


def moved(alert: Alert, *, up: bool) -> Alert:
    """Return an alert whose limit is a tenth higher or lower; a small number is moved by more than it counts."""
    if alert.limit in (0, 1, 2):
        return replace(alert, limit=alert.limit + 1e6) if up else replace(alert, limit=-1)
    return replace(alert, limit=alert.limit * (1.1 if up else 0.9))


def changed_group(
    group: Callable[[Plan, Topic], Iterable[str]], change: Callable[[Alert], Alert]
) -> Callable[[Plan, Topic], Iterable[str]]:
    """Return what writes a group of alerts that are changed before."""
    return lambda plan, topic: group(plan, replace(topic, alerts=tuple(map(change, topic.alerts))))
