"""The stack of compose.yaml: its parts fit one another and the service; and it serves an order, in containers."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask import Flask

from flask_prod.core.kit import state_of
from flask_prod.core.settings import Section, Source, key_names, read_settings
from flask_prod.deploy.plan import Plan
from flask_prod.deploy.reading import read_plan
from flask_prod.deploy.render import render
from flask_prod.deploy.targets import TARGETS
from flask_prod.server.budget import findings, planned
from flask_prod.server.sums import SurroundingsSettings
from flask_prod.server.web_settings import ServerSettings
from sample_app import create_app
from tests.deploy import newer
from tests.deploy.composed import Stack, limits, load, wrong
from tests.deploy.conftest import ROOT
from tests.deploy.containers import Rig
from tests.deploy.stack import Stack as Running
from tests.deploy.tools import program, run
from tests.review.well import COMMON, SECRETS
from tests.servers import wait_for

PROCESS = 100
"""MB that a process of the shop takes, as DEPLOY_MEMORY says."""


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Flask]:
    app = create_app({"ENVIRONMENT": "test", "DATA_DIR": str(tmp_path / "data")})
    yield app
    state_of(app).lifecycle.close()


@pytest.fixture
def plan(app: Flask) -> Plan:
    """Return what the files were made of."""
    return read_plan(state_of(app), "sample_app:create_app()", "sample_app")


@pytest.fixture(scope="session")
def home(rendered: Path) -> Path:
    return rendered / "compose"


@pytest.fixture
def stack(home: Path) -> Stack:
    return load(home / "compose.yaml")


@pytest.fixture
def names(app: Flask) -> set[str]:
    """Return the names of all settings of the service."""
    kinds: list[type[Section]] = [*state_of(app).settings.kinds, ServerSettings, SurroundingsSettings]
    return {name for kind in kinds for field in kind.__struct_fields__ for name in key_names(kind, field)}


def test_all_parts_fit(stack: Stack, home: Path, names: set[str]) -> None:
    """Networks, secrets, volumes, files and neighbours are there; nobody has rights, or more than it needs."""
    assert wrong(stack, home, names) == []


BROKEN: dict[str, Any] = {
    "web.environment.TRUSTED_PROXY": "1",
    "web.environment.SECRET_KEY": "a-secret-in-the-file",
    "web.networks": ["front", "behind"],
    "web.secrets": ["SECRET_KEYS"],
    "web.depends_on.jaeger": {"condition": "service_healthy"},
    "web.depends_on.databse": {"condition": "service_started"},
    "web.read_only": False,
    "web.image": "registry.example.com/shop:latest",
    "worker.depends_on.redis": {"condition": "service_completed_successfully"},
    "worker.deploy": {},
    "worker.cap_add": ["NET_ADMIN"],
    "database.ports": ["5432:5432"],
    "database.networks": ["back", "monitoring"],
    "database.environment.POSTGRES_PASSWORD_FILE": "/run/secrets/PASSWORD",
    "redis.volumes": ["../servers/valkey.conf:/etc/redis/redis.conf:ro"],
    "redis.logging": {},
    "grafana.volumes": ["grafanas:/var/lib/grafana"],
    "nginx.networks": ["front", "back"],
    "nginx.volumes": ["../nginx/nginx.conf:/etc/nginx/nginx.conf"],
}


def test_wrong_parts_are_found(stack: Stack, home: Path, names: set[str]) -> None:
    """Each of these mistakes is seen by the test above, and told of the service that has it."""
    seen = {}
    for place, value in BROKEN.items():
        broken = copy.deepcopy(stack)
        at: Any = broken["services"]
        service, *way, last = place.split(".")
        for word in (service, *way):
            at = at.setdefault(word, {})
        at[last] = value
        found = wrong(broken, home, names)
        seen[place] = bool(found) and any(problem.startswith(f"{service}: ") for problem in found)

    assert [place for place, was_seen in seen.items() if not was_seen] == []


def test_secrets(stack: Stack, plan: Plan) -> None:
    """Every secret of the service is mounted into each of its processes, and no other's."""
    for name in ("web", "worker", "migrate", "backup"):
        assert stack["services"][name]["secrets"] == list(plan.secrets)
    assert {"POSTGRES_PASSWORD", "GRAFANA_PASSWORD"}.isdisjoint(plan.secrets)


def test_backups(stack: Stack, plan: Plan, home: Path) -> None:
    """They are made by the schedule, into a volume that web sees too, which tells how old the newest is."""
    backup, web = stack["services"]["backup"], stack["services"]["web"]

    assert backup["command"] == ["backup", plan.deploy.backup_schedule]
    assert backup["volumes"] == web["volumes"]
    assert "backups:/backups" in backup["volumes"]
    assert "put BACKUP_URL /backups\n" in (home / "secrets.sh").read_text()


def test_ports(stack: Stack, home: Path, plan: Plan) -> None:
    """nginx, Prometheus and the health checks ask where the processes listen."""
    worker = stack["services"]["worker"]
    scraped = load(home.parent / "monitoring/prometheus/prometheus.yml")["scrape_configs"]
    targets = {one["names"][0]: one["port"] for job in scraped for one in job.get("dns_sd_configs", ())}

    assert f"server web:{plan.port} resolve" in (home / "upstream.conf").read_text()
    assert targets == {"web": plan.port, "worker": int(worker["environment"]["WORKER_PORT"])}
    assert f":{worker['environment']['WORKER_PORT']}{plan.health}/live'" in worker["healthcheck"]["test"][-1]
    assert {"METRICS_TOKEN"} == set(stack["services"]["prometheus"]["secrets"])


def test_only_loopback(home: Path, stack: Stack) -> None:
    """What compose.local.yaml shows can be reached from the machine itself only."""
    shown = load(home / "compose.local.yaml")["services"]

    assert set(shown) <= set(stack["services"])
    assert all(port.startswith("127.0.0.1:") for service in shown.values() for port in service["ports"])


def test_time_limits_and_pools_add_up(stack: Stack, plan: Plan, app: Flask, home: Path) -> None:
    """The sums of docs/shutdown.md fit with what compose does and tells, and the database has the connections."""
    web = stack["services"]["web"]
    said = {name: str(value) for name, value in web["environment"].items()}
    kinds: list[type[Section]] = [*state_of(app).settings.kinds, ServerSettings, SurroundingsSettings]
    values: dict[str, Any] = {row.key: row.value for row in read_settings(kinds, [Source("compose", said)]).rows}
    values["DATABASE_URL"] = "postgresql://database/shop"
    conf = (home.parent / "servers/postgresql.conf").read_text()
    allowed = int(re.findall(r"^max_connections = (\d+)", conf, re.MULTILINE)[0])
    workers = int(said["WEB_CONCURRENCY"])
    pool = values["DATABASE_MAX_OPEN_CONNS"]
    running = web["deploy"]["replicas"] * workers * pool + values["JOBS_WORKERS"] * 2

    for name in ("web", "worker", "migrate", "backup"):
        assert stack["services"][name]["stop_grace_period"] == said["TERMINATION_GRACE"] == f"{plan.grace}s"
    assert findings(values, planned(values, workers), allowed) == ()
    assert running <= plan.connections <= allowed - 3


def test_memory(stack: Stack, plan: Plan, home: Path) -> None:
    """Each limit holds what runs below it, and the sum is what the head of the file says."""
    found = limits(stack)
    conf = (home.parent / "servers/redis.conf").read_text()
    data = int(re.findall(r"^maxmemory (\d+)mb", conf, re.MULTILINE)[0])
    total = sum(memory * count for name, (memory, count) in found.items() if name != "migrate")

    assert plan.deploy.concurrency * PROCESS + 64 <= found["web"][0]  # 64 for /tmp, which is memory
    assert (plan.values["JOBS_WORKERS"] + 1) * PROCESS + 64 <= found["worker"][0]
    assert plan.database_sizes.most // 2**20 <= found["database"][0]
    assert data * 4 / 3 <= found["redis"][0]
    assert f"{total / 1024:.1f} GB of memory together" in (home / "compose.yaml").read_text()


def test_without_jobs_and_database(plan: Plan) -> None:
    """An application without jobs, database and Redis gets neither them nor what they need."""
    rooms = plan.rooms - {"jobs", "database", "migrations", "backups", "redis", "ratelimit", "cache"}
    small = replace(plan, rooms=rooms, prepare="", static="")
    files = {str(file.path): file.text for file in render(TARGETS["compose"], small)}
    services = yaml.safe_load(files["compose.yaml"])["services"]
    conf = next(file.text for file in render(TARGETS["nginx"], small) if file.path.name == "nginx.conf")

    assert {"nginx", "web", "prometheus", "alertmanager", "grafana"} <= set(services)
    assert {"worker", "migrate", "database", "redis"}.isdisjoint(services)
    assert "depends_on" not in services["web"]
    for word in ("REDIS", "DATABASE", "POSTGRES", "BACKUP"):
        assert word not in files["compose.yaml"] + files["secrets.sh"]
    assert "location = /debug/pool" not in conf
    assert "gzip on" not in conf


def test_production_check(stack: Stack, plan: Plan, tmp_path: Path) -> None:
    """`flask prod check` has nothing to say of the shop with this environment and with secrets of this form."""
    secrets = {name: str(COMMON.get(name, "")) for name in plan.secrets} | SECRETS
    secrets["HEALTH_TOKEN"] = SECRETS["METRICS_TOKEN"][::-1]
    secrets["DATABASE_URL"] = "postgresql://shop:rT7kQ9xLm2Vb8ZpNcW4d@database:5432/shop"
    secrets["REDIS_URL"] = "redis://shop:hJ4wX8sNc6Qy1KfDpT2m@redis:6379/0"
    (tmp_path / "secrets").mkdir()
    for name in plan.secrets:
        (tmp_path / "secrets" / name).write_text(secrets[name])
        (tmp_path / "secrets" / name).chmod(0o400)
    said = {name: str(value) for name, value in stack["services"]["web"]["environment"].items()}
    env = {"PATH": os.environ["PATH"], "SECRETS_DIR": str(tmp_path / "secrets"), "PYTHONPATH": str(ROOT), **said}

    done = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "sample_app", "prod", "check", "--fail-on", "info"],
        cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.deploy
def test_schema(home: Path, pytestconfig: pytest.Config) -> None:
    """Both files are what the Compose Specification allows, and the script is one that shellcheck likes."""
    files = [home / "compose.yaml", home / "compose.local.yaml"]
    checker = program("check-jsonschema", pytestconfig)
    done = run(checker, "--builtin-schema", "vendor.compose-spec", *files)
    assert done.returncode == 0, done.stdout + done.stderr
    done = run(program("shellcheck", pytestconfig), home / "secrets.sh")
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def running(
    rig: Rig, image: str, rendered: Path, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """Run the stack as far as there are images."""
    nginx = newer.nginx(pytestconfig)
    folder = tmp_path_factory.mktemp("stack")
    with Running(rig, rendered, folder) as stack:
        stack.prepare(image, nginx, folder)
        stack.up()
        yield stack


@pytest.mark.deploy
@pytest.mark.timeout(900)
class TestRunning:
    def test_an_order(self, running: Running) -> None:
        """An order goes from TLS through nginx and web into the database, and the worker sends its mail."""
        account = {"email": "buyer@example.com", "name": "Buyer", "password": "correct horse battery staple"}
        product = running.request("GET", "/api/products").json["products"][0]["id"]
        signed = running.request("POST", "/api/accounts/sign-up", body=account)
        assert signed.status == 201, signed.text
        sender = {"Authorization": f"Bearer {signed.json['access_token']}"}
        cart = running.request("POST", "/api/cart/items", sender, {"product": product, "quantity": 2})
        assert cart.status in (200, 201), cart.text

        order = running.request("POST", "/api/checkout", sender, {"address": "1 Harbour Road"})

        assert order.status == 201, order.text
        wait_for(lambda: "buyer@example.com" in self.mails(running), 30, "the mail of the order")
        counted = running.execute("database", "psql", "-U", "postgres", "-h", "/run/postgresql", "-Atc",
                                  "SELECT count(*) FROM orders", "shop")  # fmt: skip
        assert counted.strip() == "1"

    @staticmethod
    def mails(running: Running) -> str:
        """Return all mails that the worker has sent: where no server of mail is set, the shop writes files."""
        return running.execute("worker", "sh", "-c", "cat /app/instance/mails/*.eml 2>/dev/null || true")

    def test_the_worker_tells_of_it(self, running: Running) -> None:
        """The worker's own page of metrics, as Prometheus would ask for it, has the job that ended."""
        ask = (
            "from pathlib import Path; from urllib.request import Request, urlopen; "
            "token = Path('/run/secrets/METRICS_TOKEN').read_text().strip(); "
            "page = Request('http://worker:8001/metrics', headers={'Authorization': 'Bearer ' + token}); "
            "print(urlopen(page, timeout=5).read().decode())"
        )
        wait_for(
            lambda: re.search(
                r'^flask_prod_jobs_finished_total\{.*queue="emails".*\} [1-9]',
                running.execute("web", "python", "-c", ask), re.MULTILINE,
            ), 20, "the job in the worker's metrics",
        )  # fmt: skip

    def test_from_outside(self, running: Running) -> None:
        """Metrics are not there, health says one word, and only nginx has published a port."""
        assert running.request("GET", "/metrics").status == 404
        assert set(running.request("GET", "/health").json) == {"status"}
        for service in ("web", "worker", "database", "redis"):
            assert not any(running.inspect(service)["NetworkSettings"]["Ports"].values())

    def test_rights(self, running: Running) -> None:
        """Nobody is root, nobody can write to its root, nobody has a capability."""
        for service in ("nginx", "web", "worker", "database", "redis"):
            found = running.inspect(service)
            status = Path(f"/proc/{found['State']['Pid']}/status").read_text()
            assert found["HostConfig"]["ReadonlyRootfs"] is True, service
            assert re.search(r"^Uid:\t(?!0\t)", status, re.MULTILINE), service
            assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE), service
            assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE), service

    def test_redis(self, running: Running) -> None:
        """The service is content with its rights on Redis: nothing of it was refused."""
        log = running.logs("web") + running.logs("worker")

        assert "NoPermission" not in log
        assert "prod.redis.degraded" not in log

    def test_the_database(self, running: Running) -> None:
        """PostgreSQL runs with the sizes of the rendered file."""
        shown = running.execute("database", "psql", "-U", "postgres", "-h", "/run/postgresql", "-Atc",
                                "SHOW max_connections")  # fmt: skip
        conf = (running.home.parent / "servers/postgresql.conf").read_text()

        assert f"max_connections = {shown.strip()}\n" in conf
