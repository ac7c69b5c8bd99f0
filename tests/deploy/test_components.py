"""The optional parts of Kubernetes, each in an overlay: they build, are valid, and fit the base."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from flask import Flask

from flask_prod.components.health.settings import HealthSettings
from flask_prod.core.settings import Source, read_settings
from flask_prod.deploy.plan import Plan
from flask_prod.deploy.render import render as render_files
from flask_prod.deploy.targets import TARGETS

from . import crds
from .conftest import ROOT
from .fitting import wrong
from .manifests import Manifest, load, matches, of, one, pods, pods_of
from .test_ecs import Shop, about, plan_of
from .test_kubernetes import GIVEN
from .tools import program, run

__all__ = ["about"]  # a fixture

COMPONENTS = (
    "vault",
    "postgres",
    "redis",
    "kafka",
    "monitoring",
    "dashboards",
    "rollout-canary",
    "rollout-blue-green",
)
TOGETHER = ("postgres", "redis", "kafka", "monitoring", "dashboards", "rollout-blue-green", "vault")

OPERATORS = {
    "Secret/shop-redis",
    "Secret/shop-kafka",
    "Secret/shop-postgres-app",
    "Secret/shop-postgres-ca",
}
"""What the operators make, or a person by a command of docs/deploy/components.md."""

THEIRS = {
    f"NetworkPolicy/shop-postgres: no pod has {what}"
    for what in ("these labels", "the port 5432", "the port 8000")
}
"""The pods of an operator are in no manifest."""

Build = Callable[..., list[Manifest]]


@pytest.fixture(scope="module")
def plan(about: Shop) -> Plan:
    """Return the plan of the sample shop."""
    return about.plan


@pytest.fixture(scope="module")
def folder(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with the shop's files."""
    return written(plan, tmp_path_factory.mktemp("kubernetes"))


def written(plan: Plan, place: Path) -> Path:
    """Write the files of a plan, and return where."""
    for file in render_files(TARGETS["kubernetes"], plan):
        (place / file.path).parent.mkdir(parents=True, exist_ok=True)
        (place / file.path).write_text(file.text)
    return place


@pytest.fixture(scope="module")
def build(folder: Path, pytestconfig: pytest.Config) -> Build:
    """Give what `kubectl kustomize` makes of production with some components."""
    kubectl = program("kubectl", pytestconfig)
    made: dict[tuple[str, ...], list[Manifest]] = {}

    def make(*components: str) -> list[Manifest]:
        if components not in made:
            done = run(kubectl, "kustomize", overlay(folder, *components))
            assert done.returncode == 0, done.stderr
            made[components] = load(done.stdout)
        return made[components]

    return make


def overlay(folder: Path, *components: str) -> Path:
    """Return an overlay of production that uses these components."""
    place = folder / "overlays" / "-".join(["with", *components])
    shutil.copytree(folder / "overlays/production", place, dirs_exist_ok=True)
    said = yaml.safe_load((place / "kustomization.yaml").read_text())
    said["components"] = [f"../../components/{name}" for name in components]
    said["images"] = [{"name": "registry.example.com/shop", "digest": "sha256:" + "a" * 64}]
    (place / "kustomization.yaml").write_text(yaml.safe_dump(said))
    return place


@pytest.fixture(scope="module")
def schemas(pytestconfig: pytest.Config) -> dict[str, Any]:
    """Return the schemas of custom resources."""
    return crds.read(pytestconfig)


def custom(manifests: list[Manifest]) -> list[Manifest]:
    """Return the objects whose schema is known here."""
    return [one for one in manifests if (one["apiVersion"], one["kind"]) in crds.ROOTS]


def with_claims(manifests: list[Manifest]) -> Iterator[Manifest]:
    """Yield manifests in which a volume that is claimed is a volume, as the pod will see it."""
    for manifest in manifests:
        if manifest["kind"] != "StatefulSet":
            yield manifest
            continue
        copy: Manifest = msgspec.json.decode(msgspec.json.encode(manifest))
        claims = [{"name": claim["metadata"]["name"]} for claim in copy["spec"]["volumeClaimTemplates"]]
        copy["spec"]["template"]["spec"]["volumes"] += claims
        yield copy


# --- Built ---


@pytest.mark.deploy
@pytest.mark.parametrize("components", [*((name,) for name in COMPONENTS), TOGETHER], ids="+".join)
def test_component(build: Build, schemas: dict[str, Any], components: tuple[str, ...]) -> None:
    """Each component builds in an overlay, its objects fit the others, custom resources have no unknown field."""
    manifests = build(*components)
    added = {(one["kind"], one["metadata"]["name"]) for one in manifests}

    assert added > {(one["kind"], one["metadata"]["name"]) for one in of(build(), "Deployment")}
    assert set(wrong(list(with_claims(manifests)), {*GIVEN, *OPERATORS})) - THEIRS == set()
    assert {one["metadata"].get("namespace", "shop") for one in manifests} == {"shop"}
    for manifest in custom(manifests):
        assert crds.problems(manifest, schemas) == [], manifest["kind"]


@pytest.mark.deploy
def test_kinds_of_kubernetes_are_valid(build: Build, pytestconfig: pytest.Config, tmp_path: Path) -> None:
    """What Kubernetes itself knows of all components together is valid, field by field."""
    own = [one for one in build(*TOGETHER) if "." not in one["apiVersion"] or ".k8s.io/v1" in one["apiVersion"]]
    own = [one for one in own if one["kind"] != "SecretProviderClass"]
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(own))

    done = run(program("kubernetes-validate", pytestconfig), "-k", "1.34", "--strict", tmp_path / "all.yaml")
    told = done.stdout + done.stderr

    assert done.returncode == 0, told
    assert "WARN" not in told
    assert told.count("INFO") == len(own)


@pytest.mark.deploy
@pytest.mark.parametrize(
    ("component", "kind", "path", "value", "words"),
    [
        ("rollout-canary", "Rollout", "spec.strategy.canary.step", [], "'step' was unexpected"),
        ("rollout-canary", "Rollout", "spec.workloadRef.name", 1, "is not of type 'string'"),
        ("rollout-canary", "AnalysisTemplate", "spec.metric", [], "'metric' was unexpected"),
        ("monitoring", "ServiceMonitor", "spec.selektor", {}, "'selektor' was unexpected"),
        ("monitoring", "PodMonitor", "spec.podMetricsEndpoints", {}, "is not of type 'array'"),
        ("monitoring", "PrometheusRule", "spec.groups.0.rule", [], "'rule' was unexpected"),
        ("postgres", "Cluster", "spec.postgresql.synchronous.method", "some", "is not one of ['any', 'first']"),
        ("postgres", "Cluster", "spec.storage.sise", "1Gi", "'sise' was unexpected"),
        ("postgres", "ScheduledBackup", "spec.scedule", "", "'scedule' was unexpected"),
    ],
)
def test_the_schemas_bite(
    build: Build, schemas: dict[str, Any], component: str, kind: str, path: str, value: Any, words: str
) -> None:
    """A misspelt field, or one of another type, is found in each kind."""
    found = next(one for one in custom(build(component)) if one["kind"] == kind)
    broken: Manifest = msgspec.json.decode(msgspec.json.encode(found))
    *way, last = path.split(".")
    part: Any = broken
    for step in way:
        part = part[int(step)] if step.isdigit() else part[step]
    part[last] = value

    assert any(words in problem for problem in crds.problems(broken, schemas))


@pytest.mark.deploy
def test_one_way_to_roll_out(folder: Path, pytestconfig: pytest.Config) -> None:
    """Canary and blue-green together are refused: both are the Rollout of the same name."""
    done = run(
        program("kubectl", pytestconfig), "kustomize", overlay(folder, "rollout-canary", "rollout-blue-green")
    )

    assert done.returncode != 0
    assert "already registered id" in done.stderr


@pytest.mark.deploy
def test_secrets_from_vault(build: Build, plan: Plan) -> None:
    """Every pod of the service mounts what Vault has, and no Secret; every setting is a file."""
    manifests = build("vault")
    provider = one(manifests, "SecretProviderClass")
    objects = yaml.safe_load(provider["spec"]["parameters"]["objects"])

    assert [found["objectName"] for found in objects] == list(plan.secrets)
    for pod in pods(manifests):
        secrets = next(volume for volume in pod.spec["volumes"] if volume["name"] == "secrets")
        assert secrets["csi"]["volumeAttributes"] == {"secretProviderClass": provider["metadata"]["name"]}
        assert not [volume for volume in pod.spec["volumes"] if "secret" in volume]
        mounts = {m["name"]: m["mountPath"] for m in pod.spec["containers"][0]["volumeMounts"]}
        assert mounts["secrets"] == "/run/secrets"


@pytest.mark.deploy
def test_the_address_of_the_database(build: Build, plan: Plan) -> None:
    """The setting names a file that the volume has, in every pod; the server has the connections that all want."""
    manifests = build("postgres")
    said = one(manifests, "ConfigMap")["data"] if len(of(manifests, "ConfigMap")) == 1 else {}
    cluster = one(manifests, "Cluster")

    assert len(pods(manifests)) == 4  # web, worker, migrate, backup
    for pod in pods(manifests):
        mounts = {m["name"]: m["mountPath"] for m in pod.spec["containers"][0]["volumeMounts"]}
        (volume,) = [volume for volume in pod.spec["volumes"] if volume["name"] == "database"]
        files = {
            f"{mounts['database']}/{item['path']}"
            for source in volume["projected"]["sources"]
            for item in source["secret"]["items"]
        }
        assert files == {said["DATABASE_URL_FILE"], said["DATABASE_TLS_CA"]}
        secrets = {source["secret"]["name"] for source in volume["projected"]["sources"]}
        assert secrets == {f"{cluster['metadata']['name']}-app", f"{cluster['metadata']['name']}-ca"}
    assert int(cluster["spec"]["postgresql"]["parameters"]["max_connections"]) >= plan.connections


@pytest.mark.deploy
def test_kafka_is_asked_how_it_is(build: Build) -> None:
    """The health check names the bootstrap service that the operator makes, on a port that the listener has."""
    manifests = build("kafka")
    kafka = one(manifests, "Kafka")
    config = one(manifests, "ConfigMap")["data"]
    checks = read_settings([HealthSettings], [Source("x", {"HEALTH_CHECKS": config["HEALTH_CHECKS"]})])
    (listener,) = kafka["spec"]["kafka"]["listeners"]
    address = f"{kafka['metadata']['name']}-kafka-bootstrap:{listener['port']}"

    assert f"kafka://{address}#" in config["HEALTH_CHECKS"]
    assert "kafka" in str(checks.section(HealthSettings).checks)
    assert config["KAFKA_BOOTSTRAP_SERVERS"] == address
    assert one(manifests, "KafkaUser")["metadata"]["name"] == config["KAFKA_USERNAME"]
    for kind in ("KafkaNodePool", "KafkaTopic", "KafkaUser"):
        labels = one(manifests, kind)["metadata"]["labels"]
        assert labels["strimzi.io/cluster"] == kafka["metadata"]["name"]
    (peer,) = listener["networkPolicyPeers"]
    web = pods_of(one(manifests, "Deployment", "shop-web"))
    assert web is not None
    assert matches(peer["podSelector"], web.labels)


@pytest.mark.deploy
def test_the_names_of_the_redis_servers(build: Build) -> None:
    """Scripts get the names that the headless service gives to the pods, and files that the ConfigMap has."""
    manifests = build("redis")
    servers = one(manifests, "StatefulSet", "shop-redis")
    service = one(manifests, "Service", servers["spec"]["serviceName"])
    names = [f"shop-redis-{number}.{service['metadata']['name']}" for number in range(servers["spec"]["replicas"])]
    (files,) = [one for one in of(manifests, "ConfigMap") if one["metadata"]["name"].startswith("shop-redis-")]

    told_to_people = (ROOT / "docs/deploy/components.md").read_text()

    assert "hosts=" + ",".join(f"{name}:26379" for name in names) in told_to_people
    assert service["spec"]["clusterIP"] == "None"
    for container in servers["spec"]["template"]["spec"]["containers"]:
        told = {variable["name"]: variable.get("value") for variable in container["env"]}
        assert told["HOSTS"] is not None
        assert told["HOSTS"].split() == names
        assert told["ME"] == f"$(POD_NAME).{service['metadata']['name']}"
        assert Path(container["command"][1]).name in files["data"]


# --- Rendered ---


def test_rules_are_those_of_prometheus(folder: Path, plan: Plan) -> None:
    """The PrometheusRule has the groups of the target `monitoring`, all of them and no others."""
    files: Mapping[str, str] = {str(f.path): f.text for f in render_files(TARGETS["monitoring"], plan)}
    groups = [
        group for path, text in files.items() if path.startswith("prometheus/rules/")
        for group in yaml.safe_load(text)["groups"]
    ]  # fmt: skip
    rule = yaml.safe_load((folder / "components/monitoring/rules.yaml").read_text())

    assert sorted(rule["spec"]["groups"], key=str) == sorted(groups, key=str)


def test_dashboards_are_small_enough_to_apply(folder: Path) -> None:
    """kubectl keeps what it applied in an annotation, which may have 256 KB: each dashboard is far below."""
    said = yaml.safe_load((folder / "components/dashboards/kustomization.yaml").read_text())
    named = {name for one in said["configMapGenerator"] for name in one["files"]}
    there = {path.name: path.stat().st_size for path in (folder / "components/dashboards").glob("*.json")}

    assert named == set(there)
    assert max(there.values()) < 100_000


def test_nothing_is_on_by_default(folder: Path) -> None:
    """No overlay uses a component."""
    for name in ("development", "staging", "production"):
        said = yaml.safe_load((folder / "overlays" / name / "kustomization.yaml").read_text())
        assert "components" not in said, name


def test_an_application_with_neither_database_nor_redis(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    """Components that it has no use for are not there; the others have nothing of a worker or a migration."""
    place = written(plan_of(make_app(only=("health", "metrics", "proxy"))), tmp_path)
    components = {path.name for path in (place / "components").iterdir()}
    scraped = load((place / "components/monitoring/scrape.yaml").read_text())
    vault = yaml.safe_load((place / "components/vault/kustomization.yaml").read_text())

    assert components == set(COMPONENTS) - {"postgres", "redis"}
    assert [one["kind"] for one in scraped] == ["ServiceMonitor"]
    assert [patch["target"]["kind"] for patch in vault["patches"]] == ["Deployment", "AnalysisTemplate"]


def test_without_the_sdk_of_grafana(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has not installed what makes dashboards gets everything else."""
    for name in [name for name in sys.modules if name.startswith("grafana_foundation_sdk")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "grafana_foundation_sdk", None)
    monkeypatch.delitem(sys.modules, "flask_prod.deploy.dashboards.grafana", raising=False)

    paths = {str(file.path) for file in render_files(TARGETS["kubernetes"], plan)}

    assert "components/monitoring/rules.yaml" in paths
    assert not [path for path in paths if "dashboards" in path]
