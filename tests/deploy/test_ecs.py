"""What ECS is told: templates that fit one another, the service and its time limits, and a script."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

import pytest
import yaml
from flask import Flask
from msgspec import structs

from flask_prod.core.settings import key_names
from flask_prod.deploy.fargate import size_of
from flask_prod.deploy.plan import Plan
from flask_prod.deploy.reading import read_plan
from flask_prod.deploy.render import render as render_files
from flask_prod.deploy.targets import TARGETS
from flask_prod.server.sums import SurroundingsSettings
from flask_prod.server.web_settings import ServerSettings
from sample_app import create_app

from .conftest import ROOT
from .tools import program, run

MakeApp = Callable[..., Flask]
Template = dict[str, Any]

IMAGE = "registry.example.com/shop@sha256:" + "a" * 64


class _Intrinsic(yaml.SafeLoader):
    """Reads CloudFormation's short forms: !Sub text becomes {"Sub": text}."""


def _intrinsic(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return {suffix: loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {suffix: loader.construct_sequence(node, deep=True)}
    raise AssertionError(f"a mapping after !{suffix}")


_Intrinsic.add_multi_constructor("!", _intrinsic)


@dataclass(frozen=True)
class Shop:
    """What the sample shop says of itself: its plan, and the names of all its settings."""

    plan: Plan
    settings: frozenset[str]


@pytest.fixture(scope="module")
def about(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Ask the sample shop, and close it again."""
    app = create_app({"ENVIRONMENT": "test", "DATA_DIR": str(tmp_path_factory.mktemp("shop"))})
    state = app.extensions["prod"]
    try:
        plan = plan_of(app)
    finally:
        state.lifecycle.close()
    kinds = (*state.settings.kinds, ServerSettings, SurroundingsSettings)
    names = (name for kind in kinds for field in kind.__struct_fields__ for name in key_names(kind, field))
    return Shop(plan, frozenset(names))


@pytest.fixture(scope="module")
def plan(about: Shop) -> Plan:
    """Return the plan of the sample shop."""
    return about.plan


def plan_of(app: Flask) -> Plan:
    """Return the plan of an application as it would be in production."""
    return read_plan(app.extensions["prod"], "shop:create_app()", "shop")


@pytest.fixture(scope="module")
def folder(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with the shop's files."""
    place = tmp_path_factory.mktemp("ecs")
    for name, text in rendered_for(plan).items():
        (place / name).write_text(text)
    return place


@pytest.fixture(scope="module")
def templates(folder: Path) -> Mapping[str, Template]:
    """Return the templates of the shop by the names of their files."""
    return loaded({path.name: path.read_text() for path in folder.glob("*.yaml")})


def loaded(files: Mapping[str, str]) -> dict[str, Template]:
    """Return the templates among *files*, parsed."""
    return {Path(name).stem: yaml.load(text, _Intrinsic) for name, text in files.items() if name.endswith(".yaml")}


def rendered_for(plan: Plan) -> dict[str, str]:
    """Return the files that a plan makes, by path."""
    return {str(file.path): file.text for file in render_files(TARGETS["ecs"], plan)}


def tasks(templates: Mapping[str, Template]) -> dict[str, Template]:
    """Return the properties of each task definition by its logical name."""
    return {
        name: one["Properties"]
        for template in templates.values()
        for name, one in template["Resources"].items()
        if one["Type"] == "AWS::ECS::TaskDefinition"
    }


def ours(task: Template) -> Template:
    """Return the container of a task that runs the service."""
    found: Template = next(
        one for one in task["ContainerDefinitions"] if one["Name"] in ("web", "worker", "migrate")
    )
    return found


def environment(container: Template) -> dict[str, Any]:
    """Return the variables of a container."""
    return {pair["Name"]: pair["Value"] for pair in container["Environment"]}


def imports(part: Any) -> Iterator[str]:
    """Yield the outputs of the base stack that a part of a template asks for."""
    if isinstance(part, dict):
        if "Fn::ImportValue" in part:
            yield part["Fn::ImportValue"]["Sub"].removeprefix("${Base}-")
        for value in part.values():
            yield from imports(value)
    elif isinstance(part, list):
        for value in part:
            yield from imports(value)


def test_templates_ask_for_what_the_base_gives(templates: Mapping[str, Template]) -> None:
    """Every value that a release imports is exported by the base stack, and none is exported for nobody."""
    exported = {
        output["Export"]["Name"]["Sub"].removeprefix("${AWS::StackName}-")
        for output in templates["base"]["Outputs"].values()
        if "Export" in output
    }
    asked = {name for file in ("migrate", "service") for name in imports(templates[file])}

    assert asked <= exported
    assert exported - asked == set()


def test_no_aliases(folder: Path) -> None:
    """CloudFormation reads YAML without anchors: a template that has one is refused when it is deployed."""
    for path in folder.glob("*.yaml"):
        assert not [one for one in yaml.parse(path.read_text()) if isinstance(one, yaml.AliasEvent)], path.name


def test_every_container_is_confined(templates: Mapping[str, Template]) -> None:
    """No container may write to its image or has a capability, and the service is never root."""
    for task in tasks(templates).values():
        assert ours(task)["User"] == "10001:10001"
        for container in task["ContainerDefinitions"]:
            assert container["ReadonlyRootFilesystem"] is True, container["Name"]
            assert container["LinuxParameters"]["Capabilities"] == {"Drop": ["ALL"]}


def test_what_is_written_lies_on_a_volume_of_ours(templates: Mapping[str, Template]) -> None:
    """A volume belongs to root on Fargate, so it is opened to all before the service starts."""
    for task in tasks(templates).values():
        first = task["ContainerDefinitions"][0]
        mounted = [mount["ContainerPath"] for mount in first["MountPoints"]]

        assert (first["User"], first["Command"]) == ("0", ["chmod", "1777", *mounted])
        assert first["Essential"] is False
        assert ours(task)["DependsOn"] == [{"ContainerName": first["Name"], "Condition": "SUCCESS"}]
        assert ours(task)["MountPoints"] == first["MountPoints"]
        assert {mount["SourceVolume"] for mount in first["MountPoints"]} == {
            one["Name"] for one in task["Volumes"]
        }


def test_ports_and_paths_agree(templates: Mapping[str, Template], plan: Plan) -> None:
    """The balancer asks and sends where the container listens, and its security group lets it."""
    base = templates["base"]["Resources"]
    target, group = base["Web"]["Properties"], base["ServiceGroup"]["Properties"]["SecurityGroupIngress"][0]
    task = tasks(templates)["WebTask"]
    balanced = templates["service"]["Resources"]["Web"]["Properties"]["LoadBalancers"][0]

    assert target["HealthCheckPath"] == f"{plan.health}/ready"
    assert {target["Port"], group["FromPort"], group["ToPort"], balanced["ContainerPort"]} == {plan.port}
    assert [port["ContainerPort"] for port in ours(task)["PortMappings"]] == [plan.port]
    assert environment(ours(task))["PORT"] == str(plan.port)
    assert balanced["ContainerName"] == ours(task)["Name"]


def test_time_limits_agree(templates: Mapping[str, Template], plan: Plan) -> None:
    """ECS waits as long as a stop takes, and the service is told of what the balancer really does."""
    target = attributes(templates["base"]["Resources"]["Web"]["Properties"]["TargetGroupAttributes"])
    balancer = attributes(templates["base"]["Resources"]["Balancer"]["Properties"]["LoadBalancerAttributes"])
    idle = balancer["idle_timeout.timeout_seconds"]

    for task in tasks(templates).values():
        told = environment(ours(task))
        assert ours(task)["StopTimeout"] == plan.grace <= 120
        assert told["TERMINATION_GRACE"] == f"{plan.grace}s"
        assert told["BALANCER_TIMEOUT"] == told["BALANCER_IDLE"] == f"{idle}s"
    assert int(idle) < plan.server.keepalive
    assert int(target["deregistration_delay.timeout_seconds"]) >= plan.service.shutdown_seconds


def attributes(pairs: list[dict[str, str]]) -> dict[str, str]:
    """Return what a load balancer or a target group is told."""
    return {pair["Key"]: pair["Value"] for pair in pairs}


def test_variables_are_settings(templates: Mapping[str, Template], about: Shop, plan: Plan) -> None:
    """Every variable is a setting that the service knows, every secret one of the plan's."""
    for task in tasks(templates).values():
        assert set(environment(ours(task))) <= about.settings
        assert [secret["Name"] for secret in ours(task)["Secrets"]] == list(plan.secrets)


def test_forwarded_headers_are_those_that_the_balancer_sets(templates: Mapping[str, Template]) -> None:
    """X-Forwarded-Host comes from the client: an Application Load Balancer lets it pass."""
    told = environment(ours(tasks(templates)["WebTask"]))

    assert told["FORWARDED_HEADERS"] == "for,proto,port"
    assert told["TRUSTED_PROXIES"] == "1"


def test_a_bad_release_is_rolled_back(templates: Mapping[str, Template]) -> None:
    """Both services have the circuit breaker, and the web server's alarms take a release back as well."""
    resources = templates["service"]["Resources"]

    for name in ("Web", "Worker"):
        deployment = resources[name]["Properties"]["DeploymentConfiguration"]
        assert deployment["DeploymentCircuitBreaker"] == {"Enable": True, "Rollback": True}
        assert deployment["MinimumHealthyPercent"] == 100
        assert "DesiredCount" not in resources[name]["Properties"]  # autoscaling's
    alarms = resources["Web"]["Properties"]["DeploymentConfiguration"]["Alarms"]
    assert set(imports(alarms)) == {"Errors", "Slow"}


def test_workers_follow_a_metric_that_exists(templates: Mapping[str, Template], about: Shop) -> None:
    """The collector keeps, the declaration names and both alarms watch one metric, which the kit has."""
    collector = next(
        one for one in tasks(templates)["WebTask"]["ContainerDefinitions"] if one["Name"] == "collector"
    )
    text = environment(collector)["AOT_CONFIG_CONTENT"]["Sub"][0]
    said = yaml.safe_load(text)
    scrape = said["receivers"]["prometheus"]["config"]["scrape_configs"][0]
    declared = said["exporters"]["awsemf"]["metric_declarations"][0]
    alarms = [one["Properties"] for one in templates["service"]["Resources"].values() if "Alarm" in one["Type"]]
    names = {alarm["MetricName"] for alarm in alarms}

    assert names == set(declared["metric_name_selectors"]) == {scrape["metric_relabel_configs"][0]["regex"]}
    assert {one["Name"] for alarm in alarms for one in alarm["Dimensions"]} == set(declared["dimensions"][0])
    assert f"| `{names.pop()}` | gauge |" in (ROOT / "docs" / "metrics.md").read_text()
    assert scrape["metrics_path"] == about.plan.metrics


def test_a_stop_longer_than_fargate_allows(plan: Plan) -> None:
    """Fargate gives two minutes at the most: the service is told so, and says itself what does not fit."""
    slow = replace(
        plan,
        service=structs.replace(plan.service, drain_seconds=30.0, shutdown_seconds=100.0),
        around=structs.replace(plan.around, balancer_timeout=90.0),
    )
    files = rendered_for(slow)
    web = ours(tasks(loaded(files))["WebTask"])

    assert web["StopTimeout"] == 120
    assert environment(web)["TERMINATION_GRACE"] == "120s"
    assert "gives 120 at the most" in files["service.yaml"]
    assert environment(web)["WEB_KEEPALIVE"] == "105s"  # more than the balancer's 90


def test_an_application_with_neither_jobs_nor_database(make_app: MakeApp) -> None:
    """What it does not have it is not given: no worker, no collector, no migration."""
    files = rendered_for(plan_of(make_app(only=("health", "metrics", "proxy"))))
    found = loaded(files)

    assert set(files) == {"base.yaml", "service.yaml", "release.sh"}
    assert set(tasks(found)) == {"WebTask"}
    assert [one["Name"] for one in tasks(found)["WebTask"]["ContainerDefinitions"]] == ["volumes", "web"]
    assert "migrat" not in files["release.sh"]
    assert "Metrics" not in found["base"]["Resources"]


@pytest.mark.parametrize(
    ("cpu", "memory", "size"),
    [
        (0.1, 1, (256, 512)),
        (1.0, 512, (1024, 2048)),
        (0.5, 3000, (512, 3072)),
        (1.0, 9000, (2048, 9216)),
        (99, 1, (16384, 122880)),
    ],
)
def test_sizes_of_fargate(cpu: float, memory: int, size: tuple[int, int]) -> None:
    """A task gets the smallest size that Fargate has for what it wants, else the largest."""
    assert size_of(cpu, memory * 1024**2) == size


@pytest.mark.deploy
def test_cfn_lint_finds_nothing(folder: Path, pytestconfig: pytest.Config, tmp_path: Path) -> None:
    """cfn-lint, which knows every resource's schema, has nothing to say; a misspelt property it finds."""
    lint = program("cfn-lint", pytestconfig)
    broken = tmp_path / "broken.yaml"
    broken.write_text((folder / "migrate.yaml").read_text().replace("StopTimeout:", "StopTimeOut:"))

    done = run(lint, "--include-checks", "I", "--format", "parseable", "--", *folder.glob("*.yaml"), broken)
    found = done.stdout.splitlines()

    assert [line for line in found if not line.startswith(str(broken))] == []
    assert any("StopTimeOut" in line for line in found), done.stderr


@pytest.mark.deploy
def test_the_production_check_finds_nothing(templates: Mapping[str, Template]) -> None:
    """`flask prod check` has nothing to say to a service with the variables of the task, and good secrets."""
    said = environment(ours(tasks(templates)["WebTask"]))
    told = {name: value for name, value in said.items() if isinstance(value, str)}
    told |= {"ENVIRONMENT": "production", "SERVICE_VERSION": "1.2.3"}
    told["ALLOWED_HOSTS"] = templates["service"]["Mappings"]["Hosts"]["production"]["Names"]
    keys = {name: token_urlsafe(32) for name in ("SECRET_KEY", "HEALTH_TOKEN", "METRICS_TOKEN", "JWT_SECRET_KEY")}
    places = {
        "DATABASE_URL": f"postgresql://shop:{token_urlsafe(32)}@db.internal/shop?sslmode=verify-full",
        "REDIS_URL": f"rediss://:{token_urlsafe(32)}@redis.internal:6379/0",
        "SENTRY_DSN": "https://0123456789abcdef0123456789abcdef@o1.ingest.sentry.io/1",
        "BACKUP_URL": "s3://shop-backups/production",
        "BACKUP_KEY": token_urlsafe(32),
    }

    done = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "sample_app", "prod", "check"],
        env={"PATH": os.environ["PATH"], **told, **keys, **places},
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.stdout.startswith("Nothing"), done.stdout + done.stderr
