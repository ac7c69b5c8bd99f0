"""The Kubernetes manifests: that they fit together, fit the service, and pass what checks them."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask import Flask

from flask_prod.components.jobs.operations.watch import QueueState
from flask_prod.core.kit import state_of
from flask_prod.core.settings import Section, Source, key_names, read_settings
from flask_prod.core.sources import read_secret_files
from flask_prod.deploy import DeploySettings, Plan
from flask_prod.deploy.reading import read_plan
from flask_prod.server.budget import findings, planned
from flask_prod.server.sums import SurroundingsSettings
from flask_prod.server.web_settings import ServerSettings
from sample_app import create_app
from tests.review.well import COMMON, SECRETS

from .conftest import ROOT, render
from .fitting import wrong
from .manifests import Manifest, Pods, amount, load, load_base, of, one, pods, settings

OVERLAYS = ("development", "staging", "production")
GIVEN = ("Secret/shop-secrets",)
"""What is not in the manifests, since it is no part of a repository."""

MEMORY = 100 * 2**20
"""What a process of the shop takes, as DEPLOY_MEMORY says."""

PLAIN = """
from flask import Flask
from flask_prod import ProdKit

def create_app():
    app = Flask("Guest_book")
    ProdKit(app, without=["jobs", "database", "migrations", "backups", "redis", "ratelimit", "cache", "usage"])
    return app
"""


@pytest.fixture
def shop_app(tmp_path: Path) -> Iterator[Flask]:
    """Build the shop, of which the manifests were made."""
    app = create_app({"ENVIRONMENT": "test", "DATA_DIR": str(tmp_path / "data")})
    yield app
    state_of(app).lifecycle.close()


@pytest.fixture
def plan(shop_app: Flask) -> Plan:
    """Return what the manifests were made of."""
    return read_plan(state_of(shop_app), "sample_app:create_app()", "sample_app")


@pytest.fixture(scope="session")
def folder(rendered: Path) -> Path:
    return rendered / "kubernetes"


@pytest.fixture
def base(folder: Path) -> list[Manifest]:
    return load_base(folder / "base")


def kinds_of(app: Flask) -> list[type[Section]]:
    """Return all sections that the service reads, its web server included."""
    return [*state_of(app).settings.kinds, ServerSettings, SurroundingsSettings]


def pod(manifests: list[Manifest], owner: str) -> Pods:
    return next(pod for pod in pods(manifests) if pod.owner == owner)


def test_all_that_is_named_is_there(base: list[Manifest]) -> None:
    """No object refers to a port, a volume, a label or an object that there is not, and no pod has rights."""
    assert wrong(base, GIVEN) == []


def _break(path: str, value: object) -> Callable[[list[Manifest]], None]:
    """Return what sets one place, `Deployment/shop-web: spec.template...`, to a wrong value."""
    name, _, place = path.partition(": ")
    kind, _, called = name.partition("/")

    def change(manifests: list[Manifest]) -> None:
        at: Any = one(manifests, kind, called)
        *way, last = (int(word) if word.isdigit() else word for word in place.split("."))
        for word in way:
            at = at[word]
        at[last] = value

    return change


BROKEN = {
    "Deployment/shop-web: spec.selector.matchLabels": {"app.kubernetes.io/name": "ship"},
    "Deployment/shop-worker: spec.selector.matchLabels": {"app.kubernetes.io/name": "shop"},
    "Deployment/shop-web: spec.template.spec.containers.0.readinessProbe.httpGet.port": "web",
    "Deployment/shop-web: spec.template.spec.containers.0.resources.requests.memory": "1Gi",
    "Deployment/shop-web: spec.template.spec.containers.0.envFrom.0.configMapRef.name": "shop-settings",
    "Deployment/shop-web: spec.template.spec.containers.0.volumeMounts.0.name": "hidden",
    "Deployment/shop-web: spec.template.spec.containers.0.securityContext.readOnlyRootFilesystem": False,
    "Deployment/shop-web: spec.template.spec.volumes.0.secret.secretName": "others",
    "Deployment/shop-web: spec.template.spec.serviceAccountName": "nobody",
    "Deployment/shop-web: spec.template.spec.topologySpreadConstraints.0.labelSelector": {"a": "b"},
    "Service/shop-web: spec.ports.0.targetPort": "web",
    "Service/shop-web: spec.selector": {"app.kubernetes.io/component": "web", "app.kubernetes.io/name": "x"},
    "Ingress/shop-web: spec.rules.0.http.paths.0.backend.service.port": {"name": "web"},
    "Ingress/shop-web: spec.tls.0.hosts": ["other.example.com"],
    "HorizontalPodAutoscaler/shop-web: spec.scaleTargetRef.name": "web",
    "HorizontalPodAutoscaler/shop-web: spec.minReplicas": 9,
    "PodDisruptionBudget/shop-web: spec.selector.matchLabels": {"a": "b"},
    "PodDisruptionBudget/shop-web: spec.maxUnavailable": 0,
    "NetworkPolicy/shop-worker: spec.ingress.0.ports.0.port": "metrics",
}


@pytest.mark.parametrize("place", BROKEN)
def test_what_is_broken_is_found(base: list[Manifest], place: str) -> None:
    """The test above is worth something: each thing that can be wrong is told of the object that it is in."""
    broken = copy.deepcopy(base)

    _break(place, BROKEN[place])(broken)

    assert place.partition(": ")[0] in {sentence.partition(": ")[0] for sentence in wrong(broken, GIVEN)}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_settings(folder: Path, shop_app: Flask, overlay: str) -> None:
    """Each name in the ConfigMap is a setting of the service, and its value is one that the service takes."""
    said = settings(folder / "overlays" / overlay, "shop-config")
    kinds = kinds_of(shop_app)
    names = {name for kind in kinds for field in kind.__struct_fields__ for name in key_names(kind, field)}

    assert set(said) - names == set()
    assert not names & {key_names(DeploySettings, field)[0] for field in DeploySettings.__struct_fields__}
    read = read_settings(kinds, [Source("ConfigMap", said)])  # raises for a value that is none
    assert {row.key: row.origin for row in read.rows if row.key in said} == dict.fromkeys(said, "ConfigMap")
    assert said["ENVIRONMENT"] == overlay


def test_settings_are_those_of_the_pods(folder: Path, base: list[Manifest], plan: Plan) -> None:
    """What the service is told of its surroundings is what the manifests do."""
    said = settings(folder / "overlays/production", "shop-config")
    web, worker = pod(base, "Deployment/shop-web"), pod(base, "Deployment/shop-worker")
    annotations = one(base, "Ingress")["metadata"]["annotations"]

    assert {int(said["PORT"]), "http"} == web.ports
    assert {int(said["WORKER_PORT"]), "ops"} == worker.ports
    for found in (web, worker):
        assert said["TERMINATION_GRACE"] == f"{found.spec['terminationGracePeriodSeconds']}s"
        assert all("lifecycle" not in container for container in found.containers), "PRE_STOP says 0s"
    assert said["BALANCER_TIMEOUT"] == annotations["nginx.org/proxy-read-timeout"]
    assert annotations["nginx.org/client-max-body-size"] == f"{plan.service.max_content_length // 1024}k"
    assert {rule["host"] for rule in one(base, "Ingress")["spec"]["rules"]} == {said["ALLOWED_HOSTS"]}


def test_time_limits_and_pools_add_up(folder: Path, base: list[Manifest], plan: Plan, shop_app: Flask) -> None:
    """The sums of docs/shutdown.md fit with these settings, and all pods together find their connections."""
    said = settings(folder / "overlays/production", "shop-config")
    kinds = kinds_of(shop_app)
    values = {row.key: row.value for row in read_settings(kinds, [Source("ConfigMap", said)]).rows}
    values["DATABASE_URL"] = "postgresql://db/shop"
    most = {one["metadata"]["name"]: one["spec"]["maxReplicas"] for one in of(base, "HorizontalPodAutoscaler")}
    workers = int(said["WEB_CONCURRENCY"])
    pool = values["DATABASE_MAX_OPEN_CONNS"]

    assert findings(values, planned(values, workers), plan.connections) == ()
    assert most["shop-web"] * workers * pool + most["shop-worker"] * values["JOBS_WORKERS"] * 2 <= plan.connections


def test_a_drain_is_noticed(base: list[Manifest], plan: Plan) -> None:
    """Readiness fails often enough to take a pod out before its drain is over; a slow start is no failure."""
    (container,) = pod(base, "Deployment/shop-web").containers
    ready, startup = container["readinessProbe"], container["startupProbe"]

    assert ready["periodSeconds"] * ready["failureThreshold"] + ready["timeoutSeconds"] < plan.drain
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 60
    rolling = one(base, "Deployment", "shop-web")["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxUnavailable": 0, "maxSurge": 1}


def test_probes_are_answered(base: list[Manifest], shop_app: Flask) -> None:
    """The service answers each path that a probe asks, and in the word that it is made for."""
    client = shop_app.test_client()
    words = {
        probe: client.get(container[probe]["httpGet"]["path"]).get_data(as_text=True).strip()
        for container in pod(base, "Deployment/shop-web").containers
        for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    }

    assert words == {"startupProbe": "started", "livenessProbe": "alive", "readinessProbe": "ready"}


def test_memory(base: list[Manifest], plan: Plan) -> None:
    """The processes of a pod, and what it keeps in memory for them, fit into its limit."""
    (web,) = pod(base, "Deployment/shop-web").containers
    volumes = pod(base, "Deployment/shop-web").spec["volumes"]
    shared = sum(amount(v["emptyDir"]["sizeLimit"]) for v in volumes if v.get("emptyDir", {}).get("medium"))

    assert plan.deploy.concurrency * MEMORY + MEMORY + shared <= amount(web["resources"]["limits"]["memory"])


def test_evictions(base: list[Manifest]) -> None:
    """A node can be emptied, and while it is one pod at least serves."""
    for budget in of(base, "PodDisruptionBudget"):
        assert budget["spec"]["maxUnavailable"] == 1
    assert one(base, "HorizontalPodAutoscaler", "shop-web")["spec"]["minReplicas"] >= 2


def test_secrets(folder: Path, base: list[Manifest], plan: Plan, tmp_path: Path) -> None:
    """The example names each secret that the service gets, without a value; pods see them as files."""
    example = one(load((folder / "base/secret.example.yaml").read_text()), "Secret")
    listed = yaml.safe_load((folder / "base/kustomization.yaml").read_text())["resources"]

    assert tuple(example["stringData"]) == plan.secrets
    assert set(example["stringData"].values()) == {""}
    assert "secret.example.yaml" not in listed
    for found in pods(base):
        (container,) = found.containers
        assert {"name": "secrets", "mountPath": "/run/secrets", "readOnly": True} in container["volumeMounts"]
    for name in plan.secrets:
        (tmp_path / name).write_text("x\n")
    assert set(read_secret_files([Source("here", {"SECRETS_DIR": str(tmp_path)})])) == set(plan.secrets)


def test_production_check(folder: Path, plan: Plan, tmp_path: Path) -> None:
    """`flask prod check` has nothing to say of the shop with this ConfigMap and with these secrets."""
    secrets = {name: str(COMMON.get(name, "")) for name in plan.secrets} | SECRETS
    secrets["HEALTH_TOKEN"] = SECRETS["METRICS_TOKEN"][::-1]
    # Which certificates to trust is the database's affair: in its address, as drivers know it.
    secrets["DATABASE_URL"] += "?sslmode=verify-full"
    (tmp_path / "secrets").mkdir()
    for name in plan.secrets:
        (tmp_path / "secrets" / name).write_text(secrets[name])
        (tmp_path / "secrets" / name).chmod(0o400)
    said = settings(folder / "overlays/production", "shop-config")
    env = {"PATH": os.environ["PATH"], "SECRETS_DIR": str(tmp_path / "secrets"), "PYTHONPATH": str(ROOT), **said}

    done = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "sample_app", "prod", "check", "--fail-on", "info"],
        cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr


def test_autoscaling_metrics(folder: Path, base: list[Manifest]) -> None:
    """What autoscalers ask for, the adapter's rules make, of metrics that the service has."""
    rules = yaml.safe_load((folder / "base/prometheus-adapter.values.yaml").read_text())["rules"]
    asked = [metric for scaler in of(base, "HorizontalPodAutoscaler") for metric in scaler["spec"]["metrics"]]
    reference = (ROOT / "docs/metrics.md").read_text()

    assert {m["pods"]["metric"]["name"] for m in asked if m["type"] == "Pods"} == {
        rule["name"]["as"] for rule in rules["custom"]
    }
    assert {m["external"]["metric"]["name"] for m in asked if m["type"] == "External"} == {
        rule["name"]["as"] for rule in rules["external"]
    }
    assert all(re.findall(r'state="(\w+)"', rule["metricsQuery"]) == ["waiting"] for rule in rules["external"])
    assert "waiting" in {field.name for field in fields(QueueState)}
    for rule in (*rules["custom"], *rules["external"]):
        assert f"| `{rule['seriesQuery'].partition('{')[0]}` |" in reference


def test_an_application_without_jobs_and_database(tmp_path: Path) -> None:
    """What an application has not, its manifests have not: no worker, no migration, no backup, no queue."""
    (tmp_path / "guests.py").write_text(PLAIN)
    render("kubernetes", "helm", to=tmp_path / "deploy", app="guests", cwd=tmp_path)

    base = load_base(tmp_path / "deploy/kubernetes/base")

    assert wrong(base, ["Secret/guest-book-secrets"]) == []
    assert [found.owner for found in pods(base)] == ["Deployment/guest-book-web"]
    assert not of(base, "Job") + of(base, "CronJob")
    types = {metric["type"] for one in of(base, "HorizontalPodAutoscaler") for metric in one["spec"]["metrics"]}
    assert types == {"Resource", "Pods"}
    assert "WORKER_PORT" not in settings(tmp_path / "deploy/kubernetes/overlays/production", "guest-book-config")
    egress = one(base, "NetworkPolicy", "guest-book-egress")["spec"]["egress"]
    assert not {5432, 6379} & {port["port"] for way in egress for port in way["ports"]}
    assert "jobs" not in (tmp_path / "deploy/helm/values.yaml").read_text()
