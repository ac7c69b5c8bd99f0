"""One summary in four forms: the kit's own JSON, health+json (an IETF draft), Spring Boot's Actuator, plain text.

`?format=` chooses, else the `Accept` header; strangers get a word of each form, whoever has the token the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec

JSON, DRAFT, ACTUATOR, TEXT = "json", "health+json", "actuator", "text"
FORMATS = (JSON, DRAFT, ACTUATOR, TEXT)

TYPES = {
    JSON: "application/json",
    DRAFT: "application/health+json",
    ACTUATOR: "application/vnd.spring-boot.actuator.v3+json",
    TEXT: "text/plain; charset=utf-8",
}
_BY_TYPE = {
    "application/health+json": DRAFT,
    "application/vnd.spring-boot.actuator.v2+json": ACTUATOR,
    "application/vnd.spring-boot.actuator.v3+json": ACTUATOR,
    "application/json": JSON,
    "text/plain": TEXT,
}
_LONGEST_ACCEPT = 1000

_DRAFT_STATUS = {"healthy": "pass", "ok": "pass", "degraded": "warn", "warn": "warn"}
_UP = frozenset({"healthy", "degraded", "alive", "ready", "started", "ok", "warn"})
_PASS = frozenset({"alive", "ready", "started"})
_OUT_OF_SERVICE = frozenset({"starting", "draining", "unready"})


def chosen(query: str, accept: str) -> str:
    """Return the form asked for, empty for none in particular; one that does not exist is as none."""
    if query:
        found = dict(parse_qsl(query[:_LONGEST_ACCEPT])).get("format", "")
        if found in FORMATS:
            return found
        if found == "health json":  # a plus that was not quoted
            return DRAFT
    for part in accept[:_LONGEST_ACCEPT].split(","):
        name = part.partition(";")[0].strip().lower()
        if name in _BY_TYPE:
            return _BY_TYPE[name]
    return ""


def encoded(summary: Mapping[str, Any], form: str) -> bytes:
    """Return *summary*, or as much of it as there is: of a stranger's only `status`."""
    if form == TEXT:
        return _text(summary).encode()
    return msgspec.json.encode(_SHAPES[form](summary), enc_hook=str)


def _own(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    return summary


def _draft(summary: Mapping[str, Any]) -> dict[str, Any]:
    status = str(summary["status"])
    found: dict[str, Any] = {"status": "pass" if status in _PASS else _DRAFT_STATUS.get(status, "fail")}
    if "version" in summary:
        found |= {"version": summary["version"].partition(".")[0], "releaseId": summary["version"]}
        found |= {"serviceId": summary["service"], "description": f"{summary['service']} is {status}"}
    if "checks" in summary:
        found["checks"] = {f"{name}:responseTime": [_drafted(one)] for name, one in summary["checks"].items()}
    return found


def _drafted(check: Mapping[str, Any]) -> dict[str, Any]:
    found = {
        "status": _DRAFT_STATUS.get(check["status"], "fail"),
        "observedValue": check["latency_ms"],
        "observedUnit": "ms",
        "time": check["checked"],
    }
    return found | ({"output": check["detail"]} if check["status"] != "ok" else {})


def _actuator(summary: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"status": _actuated(str(summary["status"]))}
    if "checks" in summary:
        components = {}
        for name, check in summary["checks"].items():
            details = {key: value for key, value in check.items() if key not in ("status", "data")}
            components[name] = {"status": _actuated(check["status"]), "details": {**check["data"], **details}}
        found["components"] = components
    if summary.get("groups"):
        found["groups"] = summary["groups"]
    return found


def _actuated(status: str) -> str:
    if status in _UP:
        return "UP"
    if status in _OUT_OF_SERVICE:
        return "OUT_OF_SERVICE"
    return "UNKNOWN" if status == "unknown" else "DOWN"


def _text(summary: Mapping[str, Any]) -> str:
    lines = [str(summary["status"])]
    for name, check in summary.get("checks", {}).items():
        lines.append(" ".join(f"{name} {check['status']} {check['detail']}".split()))
    return "\n".join(lines) + ("\n" if len(lines) > 1 else "")


_SHAPES: Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {
    JSON: _own,
    DRAFT: _draft,
    ACTUATOR: _actuator,
}
