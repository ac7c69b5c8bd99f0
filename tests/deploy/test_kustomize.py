"""The overlays as kubectl builds them: valid, fitting, and clean for what scans them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from .conftest import render
from .fitting import wrong
from .manifests import load, of, one, pods, settings
from .test_kubernetes import GIVEN, OVERLAYS, PLAIN
from .tools import checkov, program, run

pytestmark = pytest.mark.deploy


@pytest.fixture(scope="session")
def folder(rendered: Path) -> Path:
    return rendered / "kubernetes"


def build(folder: Path, overlay: str, config: pytest.Config) -> str:
    """Return what `kubectl kustomize` makes of an overlay."""
    done = run(program("kubectl", config), "kustomize", folder / "overlays" / overlay)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlay(folder: Path, overlay: str, pytestconfig: pytest.Config, tmp_path: Path) -> None:
    """Each overlay builds; its objects are valid for Kubernetes, fit together, and are of its environment."""
    text = build(folder, overlay, pytestconfig)
    (tmp_path / "all.yaml").write_text(text)
    manifests = load(text)

    checked = run(program("kubernetes-validate", pytestconfig), "-k", "1.34", "--strict", tmp_path / "all.yaml")

    told = checked.stdout + checked.stderr
    assert checked.returncode == 0, told
    assert "WARN" not in told and told.count("INFO") == len(manifests), told  # noqa: PT018  # a kind without schema
    assert wrong(manifests, GIVEN) == []
    namespace = one(manifests, "Namespace")["metadata"]["name"]
    assert {m["metadata"].get("namespace", namespace) for m in manifests} == {namespace}
    (config,) = of(manifests, "ConfigMap")
    assert config["data"] == settings(folder / "overlays" / overlay, "shop-config")
    hosts = {rule["host"] for rule in one(manifests, "Ingress")["spec"]["rules"]}
    assert hosts <= set(config["data"]["ALLOWED_HOSTS"].split(","))
    images = {container["image"] for found in pods(manifests) for container in found.containers}
    assert len(images) == 1
    assert ":" in images.pop()


RELEASE = """
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
  - ../overlays/production
images:
  - name: registry.example.com/shop
    digest: sha256:{digest}
"""


def test_checkov(folder: Path, pytestconfig: pytest.Config, tmp_path: Path) -> None:
    """checkov finds nothing in what is released, its image by digest, but for what is skipped with a reason."""
    scanner = checkov(pytestconfig)
    copied = shutil.copytree(folder, tmp_path / "kubernetes")
    (copied / "release").mkdir()
    (copied / "release/kustomization.yaml").write_text(RELEASE.format(digest="a" * 64))
    released = run(program("kubectl", pytestconfig), "kustomize", copied / "release")
    assert released.returncode == 0, released.stderr
    (tmp_path / "all.yaml").write_text(released.stdout)

    command = [scanner, "--framework", "kubernetes", "--skip-download", "--compact", "--output", "json"]
    done = run("env", f"TMPDIR={tmp_path}", *command, "--file", tmp_path / "all.yaml")

    assert done.returncode == 0, done.stdout
    summary = json.loads(done.stdout)
    assert summary["summary"]["passed"] > 300
    skipped = [
        (c["check_id"], c["check_result"]["suppress_comment"]) for c in summary["results"]["skipped_checks"]
    ]
    assert {check for check, _ in skipped} == {"CKV_K8S_15"}
    assert all(reason for _, reason in skipped)


ODD = """
from flask import Flask
from flask_prod import ProdKit

app = Flask("odd")
ProdKit(app, without=["health", "tracing"])
"""
ODD_PROFILE = """
SERVICE_NAME = "Odd Thing & Co"
PORT = 5000
METRICS_PORT = 9100
WORKER_PORT = 7000
WEB_WORKER_CLASS = "gevent"
ALLOWED_HOSTS = ["*.odd.example.org", "odd.example.org"]
TRUSTED_PROXIES = 2
BALANCER_TIMEOUT = "2m"
SHUTDOWN_SECONDS = 40
DEPLOY_CPU = 0.3
DEPLOY_IMAGE = "ghcr.io/odd/thing"
"""


@pytest.mark.parametrize(("source", "name"), [(PLAIN, "guest-book"), (ODD, "odd-thing-co")])
def test_other_applications(tmp_path: Path, pytestconfig: pytest.Config, source: str, name: str) -> None:
    """Manifests and chart of quite another application build, are valid and fit together as well."""
    (tmp_path / "other.py").write_text(source)
    (tmp_path / "config").mkdir()
    (tmp_path / "config/production.toml").write_text(ODD_PROFILE if source == ODD else "")
    render("kubernetes", "helm", to=tmp_path / "deploy", app="other", cwd=tmp_path)

    made = {o: build(tmp_path / "deploy/kubernetes", o, pytestconfig) for o in ("development", "production")}
    helm = program("helm", pytestconfig)
    made["chart"] = run(helm, "template", name, tmp_path / "deploy/helm", "--namespace", name).stdout

    assert run(helm, "lint", "--strict", tmp_path / "deploy/helm").returncode == 0
    for what, text in made.items():
        assert wrong(load(text), [f"Secret/{name}-secrets"]) == [], what
    (tmp_path / "all.yaml").write_text("\n---\n".join(made.values()))
    checked = run(program("kubernetes-validate", pytestconfig), "-k", "1.34", "--strict", tmp_path / "all.yaml")
    assert checked.returncode == 0, checked.stdout
    web = next(pod for pod in pods(load(made["chart"])) if pod.owner == f"Deployment/{name}-web")
    assert web.ports == ({"http", 5000, "metrics", 9100} if source == ODD else {"http", 8000})


def test_queries_of_the_adapter(folder: Path) -> None:
    """The queries that prometheus-adapter is told are PromQL, with labels and groups as it fills them in."""
    import promql_parser  # in the extra deploy-test only

    rules = yaml.safe_load((folder / "base/prometheus-adapter.values.yaml").read_text())["rules"]
    for rule in (*rules["custom"], *rules["external"]):
        series = rule["seriesQuery"].partition("{")[0]
        query = rule["metricsQuery"].replace("<<.Series>>", series)
        query = query.replace("<<.LabelMatchers>>", 'namespace="shop",pod=~"a|b"').replace("<<.GroupBy>>", "pod")
        promql_parser.parse(query)
        promql_parser.parse(rule["seriesQuery"])
        assert "<<" not in query
