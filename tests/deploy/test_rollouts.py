"""Canary and blue-green: what is rolled out, how it is judged, and what is scraped for it."""

from __future__ import annotations

import importlib
import re

import msgspec
import pytest

from .conftest import ROOT
from .manifests import matches, of, one, pods, pods_of
from .test_components import Build, about, build, folder, plan
from .test_kubernetes import GIVEN

__all__ = ["about", "build", "folder", "plan"]  # fixtures


@pytest.mark.deploy
@pytest.mark.parametrize("component", ["rollout-canary", "rollout-blue-green"])
def test_rollout(build: Build, component: str) -> None:
    """The Rollout takes the pods of the Deployment, the autoscaler follows it, and every name it says is there."""
    manifests = build(component)
    rollout = one(manifests, "Rollout", "shop-web")["spec"]
    templates = {template["metadata"]["name"] for template in of(manifests, "AnalysisTemplate")}
    services = {service["metadata"]["name"]: service for service in of(manifests, "Service")}
    strategy = rollout["strategy"]
    text = msgspec.json.encode(strategy).decode()

    assert rollout["workloadRef"]["name"] == one(manifests, "Deployment", "shop-web")["metadata"]["name"]
    assert one(manifests, "HorizontalPodAutoscaler", "shop-web")["spec"]["scaleTargetRef"]["kind"] == "Rollout"
    assert set(re.findall(r'"templateName":"([^"]+)"', text)) <= templates
    web = pods_of(one(manifests, "Deployment", "shop-web"))
    assert web is not None
    for key in ("activeService", "previewService"):
        if name := strategy.get("blueGreen", {}).get(key):
            assert matches(services[name]["spec"]["selector"], web.labels)


@pytest.mark.deploy
def test_smoke_of_a_preview(build: Build) -> None:
    """The new image asks the new pods, with the settings and secrets of the service, and its network lets it."""
    manifests = build("rollout-blue-green")
    smoke = one(manifests, "AnalysisTemplate", "shop-smoke")["spec"]["metrics"][0]["provider"]["job"]["spec"]
    job = smoke["template"]["spec"]
    container = job["containers"][0]
    (config,) = of(manifests, "ConfigMap")
    let = [
        peer["podSelector"]["matchLabels"]
        for policy in of(manifests, "NetworkPolicy", "shop-web")
        for way in policy["spec"]["ingress"]
        for peer in way["from"]
        if "podSelector" in peer
    ]

    assert container["image"].endswith("@sha256:" + "a" * 64)
    assert container["envFrom"][0]["configMapRef"]["name"] == config["metadata"]["name"]
    assert "http://shop-web-preview " in container["command"][2]
    assert any(peer.items() <= smoke["template"]["metadata"]["labels"].items() for peer in let)
    assert "ALLOWED_HOSTS" in config["data"]
    secret = one(build("rollout-blue-green", "vault"), "AnalysisTemplate", "shop-smoke")
    assert "secretProviderClass" in msgspec.json.encode(secret).decode()


@pytest.mark.deploy
def test_queries_of_analyses(build: Build) -> None:
    """Each query parses, asks for what is scraped, and of the job that the ServiceMonitor names."""
    manifests = build("monitoring", "rollout-blue-green")
    parser = importlib.import_module("promql_parser")
    reference = (ROOT / "docs" / "metrics.md").read_text()
    monitor = one(manifests, "ServiceMonitor")["spec"]
    job = monitor["endpoints"][0]["relabelings"][0]["replacement"]
    labels = {name.replace("-", "_") for name in monitor["podTargetLabels"]}
    queries = [
        metric["provider"]["prometheus"]["query"]
        for template in of(manifests, "AnalysisTemplate")
        for metric in template["spec"]["metrics"]
        if "prometheus" in metric["provider"]
    ]

    assert len(queries) == 2
    for query in (query.replace("{{args.hash}}", "7d9c") for query in queries):
        parser.parse(query)
        for name, selector in re.findall(r"(flask_\w+)\{([^}]*)\}", query):
            assert f"| `{re.sub('_bucket$', '', name)}` |" in reference, name
            asked = dict(re.findall(r'(\w+)=~?"([^"]*)"', selector))
            assert asked["job"] == job
            assert set(asked) <= {"job", "status", *labels}


@pytest.mark.deploy
def test_conditions_of_analyses(build: Build) -> None:
    """A version that nobody asked anything is no failure, and the limits are those of the alerts."""
    (template,) = of(build("rollout-canary"), "AnalysisTemplate")
    conditions = {metric["name"]: metric["successCondition"] for metric in template["spec"]["metrics"]}

    assert conditions == {
        "errors": "len(result) == 0 || result[0] < 0.05",
        "latency": "len(result) == 0 || result[0] < 1",
    }


@pytest.mark.deploy
@pytest.mark.parametrize("component", ["rollout-canary", "rollout-blue-green"])
def test_analyses_end(build: Build, component: str) -> None:
    """A metric with an interval and no count is measured for ever: no rollout would ever be done."""
    for template in of(build(component), "AnalysisTemplate"):
        for metric in template["spec"]["metrics"]:
            assert ("interval" in metric) == ("count" in metric), metric["name"]


@pytest.mark.deploy
def test_what_is_scraped(build: Build) -> None:
    """Each pod is scraped once, on a port that it has, with a token that is there."""
    manifests = build("monitoring", "rollout-blue-green")
    monitor = one(manifests, "ServiceMonitor")["spec"]
    scraped = [s for s in of(manifests, "Service") if matches(monitor["selector"], s["metadata"]["labels"])]
    workers = one(manifests, "PodMonitor")["spec"]
    followed = [pod for pod in pods(manifests) if matches(workers["selector"], pod.labels)]

    assert [service["metadata"]["name"] for service in scraped] == ["shop-web"]
    assert monitor["endpoints"][0]["port"] in [port["name"] for port in scraped[0]["spec"]["ports"]]
    assert [pod.owner for pod in followed] == ["Deployment/shop-worker"]
    assert workers["podMetricsEndpoints"][0]["port"] in followed[0].ports
    for endpoint in (monitor["endpoints"][0], workers["podMetricsEndpoints"][0]):
        credentials = endpoint["authorization"]["credentials"]
        assert f"Secret/{credentials['name']}" in GIVEN
        assert credentials["key"] == "METRICS_TOKEN"
