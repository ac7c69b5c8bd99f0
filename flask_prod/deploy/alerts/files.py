"""The data as YAML: groups of rules, and the cases as unit tests of promtool."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from ..plan import Plan
from .rule import Alert, Case
from .topics import Topic, topics

_INTERVALS = {False: "1m", True: "10m"}
"""How far the values of a case lie apart: those of windows of days would be thousands otherwise."""


def rule_files(plan: Plan) -> dict[str, str]:
    """Return the files that Prometheus loads, and their unit tests."""
    files = {}
    for topic in topics(plan):
        files[f"prometheus/rules/{topic.name}.yml"] = _document(_group(plan, topic))
        for slow in sorted({alert.slow for alert in topic.alerts}):
            name = f"{topic.name}-slow" if slow else topic.name
            files[f"prometheus/tests/{name}.yml"] = _tests(plan, topic, slow=slow)
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
        "runbook_url": alert.runbook(plan.deploy.runbooks),
    }


def _block(key: str, text: str) -> Iterator[str]:
    """Yield a text of one line, or several, without any quoting that PromQL would be unreadable with."""
    indent = " " * (len(key) - len(key.lstrip()) + 2)
    yield f"{key}: |-"
    yield from (f"{indent}{line}" for line in text.splitlines())


def _tests(plan: Plan, topic: Topic, *, slow: bool) -> str:
    interval = _INTERVALS[slow]
    lines = [
        "# Each alert fires in one test and is quiet in one, close to its limit: `promtool test rules *.yml`.",
        f"rule_files: [../rules/{topic.name}.yml]",
        f"evaluation_interval: {interval}",
        "tests:",
    ]
    for alert in topic.alerts:
        if alert.slow == slow:
            lines += _test(plan, alert, alert.fires, interval, fires=True)
            lines += _test(plan, alert, alert.quiet, interval, fires=False)
    return "\n".join(lines) + "\n"


def _test(plan: Plan, alert: Alert, case: Case, interval: str, *, fires: bool) -> Iterator[str]:
    yield f"  - name: {alert.name} {'fires' if fires else 'is quiet'}"
    yield f"    interval: {interval}"
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
