"""The Helm chart: that it makes what kustomize makes, and refuses values that are wrong."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from .fitting import wrong
from .manifests import Manifest, label, load, of, one, pods
from .test_kubernetes import GIVEN
from .test_kustomize import build
from .tools import program, run

pytestmark = pytest.mark.deploy

DIGEST = "sha256:" + "a" * 64
CONFIG = "shop-config"
"""The settings: kustomize adds a hash to the name, and Helm's migration has a copy of its own."""


@pytest.fixture(scope="session")
def chart(rendered: Path) -> Path:
    return rendered / "helm"


def template(chart: Path, config: pytest.Config, *options: str, release: str = "shop") -> list[Manifest]:
    """Return the objects of the chart with these options."""
    done = run(program("helm", config), "template", release, chart, "--namespace", "shop", *options)
    assert done.returncode == 0, done.stderr
    return load(done.stdout)


def alike(manifest: Manifest) -> Manifest:
    """Return an object without that in which Helm and kustomize differ; docs/deploy/helm.md lists it."""
    same: Manifest = copy.deepcopy(manifest)
    _same_notes(same["metadata"])
    if same["kind"] == "Deployment":
        _same_notes(same["spec"]["template"]["metadata"])
    if same["kind"] == "ConfigMap":
        same["metadata"]["name"] = CONFIG
    for found in pods([same]):
        for container in found.containers:
            container["envFrom"][0]["configMapRef"]["name"] = CONFIG
    return same


def _same_notes(meta: dict[str, Any]) -> None:
    """Take off who manages an object, when Helm makes it, and what makes pods start anew for other settings."""
    for name in ("helm.sh/chart", "app.kubernetes.io/managed-by"):
        meta["labels"].pop(name, None)
    notes = meta.pop("annotations", {})
    kept = {name: value for name, value in notes.items() if not name.startswith(("helm.sh/", "checksum/"))}
    if kept:
        meta["annotations"] = kept


def test_chart_is_clean(chart: Path, pytestconfig: pytest.Config) -> None:
    """`helm lint --strict` has nothing to say."""
    done = run(program("helm", pytestconfig), "lint", "--strict", chart)

    assert done.returncode == 0, done.stdout + done.stderr


def test_helm_and_kustomize_make_the_same(chart: Path, rendered: Path, pytestconfig: pytest.Config) -> None:
    """With its defaults the chart makes the objects of the production overlay, to the last field."""
    ours = template(chart, pytestconfig)
    theirs = load(build(rendered / "kubernetes", "production", pytestconfig))
    (hooked,) = of(ours, "ConfigMap", "shop-migrate")
    (test,) = of(ours, "Pod")

    assert hooked["data"] == one(ours, "ConfigMap", CONFIG)["data"]
    ours = [m for m in ours if m not in (hooked, test)]
    theirs = [m for m in theirs if m["kind"] != "Namespace"]
    assert {label(m): m for m in map(alike, ours)} == {label(m): m for m in map(alike, theirs)}


def test_any_release_fits(chart: Path, pytestconfig: pytest.Config, tmp_path: Path) -> None:
    """A release of another name refers to itself alone, and its objects are valid."""
    manifests = template(chart, pytestconfig, "--set", f"image.digest={DIGEST}", release="blue")
    text = "\n---\n".join(map(repr, manifests))  # JSON, but for quotes, is YAML
    (tmp_path / "all.yaml").write_text(text)

    assert wrong(manifests, GIVEN) == []
    checked = run(program("kubernetes-validate", pytestconfig), "-k", "1.34", "--strict", tmp_path / "all.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert {m["metadata"]["namespace"] for m in manifests} == {"shop"}
    assert all(m["metadata"]["name"].startswith("blue-shop") for m in manifests)
    images = {container["image"] for found in pods(manifests) for container in found.containers}
    assert images == {f"registry.example.com/shop@{DIGEST}"}


def test_parts_that_are_switched_off(chart: Path, pytestconfig: pytest.Config) -> None:
    """Without autoscaling the Deployments say how many pods there are; the rest fits without what is off."""
    off = ",".join(f"{part}.enabled=false" for part in ("autoscaling", "ingress", "networkPolicy", "backup"))

    manifests = template(chart, pytestconfig, "--set", off)

    assert wrong(manifests, GIVEN) == []
    assert {m["kind"] for m in manifests}.isdisjoint(
        {"HorizontalPodAutoscaler", "Ingress", "NetworkPolicy", "CronJob"}
    )
    assert {m["metadata"]["name"]: m["spec"]["replicas"] for m in of(manifests, "Deployment")} == {
        "shop-web": 2,
        "shop-worker": 1,
    }


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("web.maxReplicas=0", "/web/maxReplicas"),
        ("ingress.hsot=shop.example.com", "'hsot' not allowed"),
        ("image.digest=latest", "/image/digest"),
        ("web.memory=512", "/web/memory"),
        ("config.PORT=9000", "/config/PORT"),
        ("config.log_level=DEBUG", "log_level"),
        ("ingress.host=other.example.com", "not in config.ALLOWED_HOSTS"),
    ],
)
def test_wrong_values(chart: Path, pytestconfig: pytest.Config, value: str, sentence: str) -> None:
    """A value that is none is refused by its name, before anything is installed."""
    option = "--set-string" if "PORT" in value else "--set"

    done = run(program("helm", pytestconfig), "template", "shop", chart, option, value)

    assert done.returncode != 0
    assert sentence in done.stderr


def test_migration_comes_first(chart: Path, pytestconfig: pytest.Config) -> None:
    """The Job comes after its account and its settings, and all three before an installation and an upgrade."""
    manifests = template(chart, pytestconfig)
    hooks = {
        label(m): (notes["helm.sh/hook"], int(notes["helm.sh/hook-weight"]))
        for m in manifests
        if (notes := m["metadata"].get("annotations", {})).get("helm.sh/hook-weight")
    }

    before = "pre-install,pre-upgrade"
    assert hooks == {
        "ServiceAccount/shop-migrate": (before, -10),
        "ConfigMap/shop-migrate": (before, -10),
        "Job/shop-migrate": (before, 0),
    }
