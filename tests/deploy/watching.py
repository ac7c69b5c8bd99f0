"""The sample shop with its worker, watched by a real Prometheus and a real Alertmanager with the rendered files.

Only what tells one place from another is changed in these files: addresses, the token's path, who is called, and
how long everybody waits before saying something.
"""

from __future__ import annotations

import json
import re
import shutil
import ssl
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import trustme
import yaml

from sample_app import traffic
from tests.components.health.talkers import saying, talker
from tests.sample_app.shop import ENVIRONMENT, ROOT, Shop, prepare
from tests.servers import HOST, HttpSink, Process, Valkey, free_port, wait_for

from .asking import Asked

TOKEN = "a-token-for-these-tests"
KEY = "a-routing-key-for-these-tests"
TEMPLATES = Path("/usr/share/prometheus/alertmanager")
"""What Debian's Alertmanager does not start without."""

LISTENERS = ("pager", "tickets")

Program = Callable[[str], str]


@dataclass
class Watched:
    """What runs."""

    shop: Shop
    prometheus: Asked
    told: Mapping[str, HttpSink]
    """What stands for PagerDuty and Slack, by receiver of Alertmanager."""

    alertmanager: str
    """The address of Alertmanager."""

    def inhibited(self, *labels: Mapping[str, str]) -> list[bool]:
        """Tell Alertmanager of these alerts; return which of them it silences because of the others."""
        sent = json.dumps([{"labels": {**one, "case": "1"}} for one in labels]).encode()
        told = Request(f"{self.alertmanager}/api/v2/alerts", sent, {"Content-Type": "application/json"})
        with urlopen(told, timeout=10) as answer:
            answer.read()
        with urlopen(f"{self.alertmanager}/api/v2/alerts?filter=case%3D1", timeout=10) as answer:
            found = json.load(answer)
        silent = {tuple(sorted(one["labels"].items())) for one in found if one["status"]["inhibitedBy"]}
        return [tuple(sorted({**one, "case": "1"}.items())) in silent for one in labels]

    def rules(self) -> list[dict[str, Any]]:
        """Return all rules as Prometheus evaluates them."""
        with urlopen(f"{self.prometheus.url}/api/v1/rules", timeout=10) as answer:
            groups = json.load(answer)["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]


@contextmanager
def watched(rendered: Path, folder: Path, program: Program, database: str) -> Iterator[Watched]:
    """Run all of it, with traffic before."""
    with ExitStack() as stack:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost").configure_cert(context)
        proxy = stack.enter_context(talker(saying(b""), context))
        valkey = stack.enter_context(Valkey(args=("--appendonly", "yes")))
        ports = {"worker": free_port(), "prometheus": free_port(), "alertmanager": free_port()}
        env = _environment(folder, database, valkey.url) | {
            "HEALTH_CHECKS": f"proxy=tls://localhost:{proxy}#interval=1s",
            "SSL_CERT_FILE": str(folder / "ca.pem"),
        }
        prepare(database, folder)
        shop = stack.enter_context(Shop({**env, "RUN_DIR": str(folder / "web")}))
        # A directory of its own, as in a container of its own.
        _start(
            stack,
            folder / "worker",
            _worker(),
            {
                **shop.env,
                "RUN_DIR": str(folder / "worker"),
                "WORKER_PORT": str(ports["worker"]),
                "WORKER_BIND": HOST,
            },
        )
        told = {name: stack.enter_context(HttpSink()) for name in LISTENERS}
        _send_traffic(shop)
        _start_watchers(stack, rendered / "monitoring", folder, program, told, shop.port, ports)
        asked = Asked(f"http://{HOST}:{ports['prometheus']}")
        up = 'sum_over_time(up{job=~"shop|shop-worker"}[1m]) >= 3'
        wait_for(lambda: asked.count(up) == 2, 40, "web and worker to be scraped three times")
        yield Watched(shop, asked, told, f"http://{HOST}:{ports['alertmanager']}")


def _environment(folder: Path, database: str, redis: str) -> dict[str, str]:
    return {
        **ENVIRONMENT,
        "DATABASE_URL": database,
        "REDIS_URL": redis,
        "DATA_DIR": str(folder / "data"),
        "MAIL_DIR": str(folder / "mails"),
        "METRICS_TOKEN": TOKEN,
        "ALLOWED_HOSTS": HOST,
        "HEALTH_BACKGROUND": "true",
        "HEALTH_INTERVAL": "1s",
        "BACKUP_URL": f"file://{folder / 'backups'}",
        "BACKUP_KEY": "a-key-of-at-least-thirty-two-characters",
        "RATE_LIMIT_POLICIES": "auth=5/1m; checkout=100000/1m",  # the sixth who signs in gets 429
    }


def _worker() -> list[str]:
    return [sys.executable, "-m", "flask", "--app", "sample_app", "prod", "worker"]


def _send_traffic(shop: Shop) -> None:
    seen, people = traffic.run(shop.url, buyers=3, seconds=2, pace=0.01)
    for number in range(6):
        shop.api("POST", "/accounts/sign-in", {"email": f"{number}@example.com", "password": "not the right one"})
    shop.api("GET", "/categories", token="of nobody")  # whoever signs in gets no page of the cache
    for one in people:
        one.client.close()
    assert seen.orders, "nobody has bought anything"
    assert not seen.broken


def _start_watchers(
    stack: ExitStack, files: Path, folder: Path, program: Program, told: Mapping[str, HttpSink], web: int,
    ports: Mapping[str, int],
) -> None:  # fmt: skip
    listening = {name: f"{HOST}:{port}" for name, port in ports.items()}
    _configure_prometheus(files / "prometheus", folder, web, ports)
    _configure_alertmanager(files / "alertmanager/alertmanager.yml", folder, told)
    _start(
        stack, folder / "am",
        [
            _alertmanager(Path(program("prometheus-alertmanager")), folder / "am"),
            f"--config.file={folder}/alertmanager.yml",
            f"--storage.path={folder}/am", f"--web.listen-address={listening['alertmanager']}",
            "--cluster.listen-address=",
        ],
        cwd=folder / "am",
    )  # fmt: skip
    _start(
        stack, folder / "tsdb",
        [
            program("prometheus"), f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/tsdb/data",
            f"--web.listen-address={listening['prometheus']}", "--log.level=warn",
        ],
    )  # fmt: skip


def _alertmanager(program: Path, folder: Path) -> str:
    """Return Debian's program; one that is not installed finds its templates where it is started, in *folder*."""
    brought = program.parent / TEMPLATES.relative_to("/")
    if TEMPLATES.exists() or not brought.exists():
        return str(program)
    shutil.copytree(brought, folder, ignore=shutil.ignore_patterns("*ui*"))
    path = str(TEMPLATES).encode()
    here = (b"./" * len(path))[: len(path)]  # as long as what it replaces: nothing else moves
    moved = folder / program.name
    moved.write_bytes((program.parent / "usr/bin/prometheus-alertmanager").read_bytes().replace(path, here))
    moved.chmod(0o755)
    return str(moved)


def _start(
    stack: ExitStack, folder: Path, command: list[str], env: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> None:
    folder.mkdir(exist_ok=True)
    process = Process(folder)
    process.launch(command, env, cwd)
    stack.callback(process.finish)


def _configure_prometheus(files: Path, folder: Path, web: int, ports: Mapping[str, int]) -> None:
    (folder / "token").write_text(TOKEN + "\n")
    config = yaml.safe_load((files / "prometheus.yml").read_text())
    config["global"].update(scrape_interval="1s", scrape_timeout="1s", evaluation_interval="1s")
    config["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [f"{HOST}:{ports['alertmanager']}"]}]}]
    targets = {"shop": web, "shop-worker": ports["worker"], **ports}
    for job in config["scrape_configs"]:
        job.pop("dns_sd_configs", None)
        job["static_configs"] = [{"targets": [f"{HOST}:{targets[job['job_name']]}"]}]
        if "authorization" in job:
            job["authorization"]["credentials_file"] = str(folder / "token")
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (folder / "rules").mkdir()
    for path in (files / "rules").glob("*.yml"):
        soon = re.sub(r"^        for: \w+$", "        for: 1s", path.read_text(), flags=re.MULTILINE)
        (folder / "rules" / path.name).write_text(soon)


def _configure_alertmanager(file: Path, folder: Path, told: Mapping[str, HttpSink]) -> None:
    config = yaml.safe_load(file.read_text())
    for route in (config["route"], *config["route"]["routes"]):
        route.update(group_wait="200ms", group_interval="1s")
    for receiver in config["receivers"]:
        sink = told[receiver["name"]]
        secret = folder / receiver["name"]
        if "pagerduty_configs" in receiver:
            secret.write_text(KEY)
            receiver["pagerduty_configs"][0].update(routing_key_file=str(secret), url=sink.url)
        else:
            secret.write_text(sink.url)
            receiver["slack_configs"][0].update(api_url_file=str(secret))
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(config))
