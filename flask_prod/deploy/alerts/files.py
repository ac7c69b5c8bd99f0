"""The data as YAML: groups of rules, and the cases as unit tests of promtool."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from ..plan import Plan
from .rule import Alert, Case
from .topics import Topic, topics


def rule_files(plan: Plan) -> dict[str, str]:
    """Return the files that Prometheus loads, and their unit tests."""
    files = {}
    for topic in topics(plan):
        files[f"prometheus/rules/{topic.name}.yml"] = _document(_group(plan, topic))
        for step in sorted({alert.step for alert in topic.alerts}):
            name = topic.name if step == "1m" else f"{topic.name}-{step}"
            files[f"prometheus/tests/{name}.yml"] = _tests(plan, topic, step)
    return files


def all_groups(plan: Plan) -> str:
    """Return all rules as one document: the `spec` of a PrometheusRule."""
    return _document(line for topic in topics(plan) for line in _group(plan, topic))


def _document(lines: Iterable[str]) -> str:
    return "\n".join(["groups:", *lines]) + "\n"


def _group(plan: Plan, topic: Topic) -> Iterator[str]:
    """Yield one group: rules are computed one after the other, so alerts see what was recorded just now."""
    yield f"  - name: {plan.name}-{topic.name}"
    yield "    rules:"
    for rule in topic.recordings:
        yield f"      - record: {rule.record}"
        yield from _block("        expr", rule.expr)
    for alert in topic.alerts:
        yield from _alert(plan, alert)


def _alert(plan: Plan, alert: Alert) -> Iterator[str]:
    yield f"      - alert: {alert.name}"
    yield from _block("        expr", alert.expr)
    if alert.wait != "0m":
        yield f"        for: {alert.wait}"
    yield "        labels:"
    for name, value in _labels(plan, alert).items():
        yield f"          {name}: {value}"
    yield "        annotations:"
    for name, value in _annotations(plan, alert, alert.description).items():
        yield f"          {name}: {json.dumps(value)}"


def _labels(plan: Plan, alert: Alert) -> dict[str, str]:
    return {"severity": alert.severity, "service": plan.name, "about": alert.about}


def _annotations(plan: Plan, alert: Alert, description: str) -> dict[str, str]:
    return {
        "summary": alert.summary,
        "description": description,
        "runbook_url": alert.runbook(plan.runbooks),
    }


def _block(key: str, text: str) -> Iterator[str]:
    """Yield a text of one line, or several, without any quoting that PromQL would be unreadable with."""
    indent = " " * (len(key) - len(key.lstrip()) + 2)
    yield f"{key}: |-"
    yield from (f"{indent}{line}" for line in text.splitlines())


def _tests(plan: Plan, topic: Topic, step: str) -> str:
    lines = [
        "# Each alert fires in one test and is quiet in one, close to its limit: `promtool test rules *.yml`.",
        f"rule_files: [../rules/{topic.name}.yml]",
        f"evaluation_interval: {step}",
        "tests:",
    ]
    for alert in topic.alerts:
        if alert.step == step:
            lines += _test(plan, alert, alert.fires, fires=True)
            lines += _test(plan, alert, alert.quiet, fires=False)
    return "\n".join(lines) + "\n"


def _test(plan: Plan, alert: Alert, case: Case, *, fires: bool) -> Iterator[str]:
    yield f"  - name: {alert.name} {'fires' if fires else 'is quiet'}"
    yield f"    interval: {alert.step}"
    yield "    input_series:"
    for series, values in case.series.items():
        yield f"      - series: {_quoted(series)}"
        yield f"        values: {values}"
    yield "    alert_rule_test:"
    yield f"      - eval_time: {case.at}"
    yield f"        alertname: {alert.name}"
    if not fires:
        yield "        exp_alerts: []"
        return
    yield "        exp_alerts:"
    yield f"          - exp_labels: {json.dumps({**_labels(plan, alert), **case.labels})}"
    yield "            exp_annotations:"
    for name, value in _annotations(plan, alert, case.description).items():
        yield f"              {name}: {json.dumps(value)}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
