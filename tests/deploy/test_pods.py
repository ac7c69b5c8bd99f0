"""The pods that the manifests describe, run as a node would: the same command, user, limits, volumes and settings.

There is no cluster here: scheduling, Services, the Ingress and the network policies are not tried.
"""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.servers import Postgres, Valkey, free_port, wait_for

from .containers import Container, Rig
from .manifests import Pods, amount, load_base, pods, settings

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(300)]  # the first test may build the image

BY_INGRESS = {"Host": "shop.example.com", "X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https"}
TOKEN = "token-of-this-test-" + "x" * 32


class Node:
    """What a kubelet does with one pod, by podman: it takes nothing that the manifest does not give."""

    def __init__(self, rig: Rig, image: str, secrets: Path, values: Mapping[str, str]) -> None:
        self.rig = rig
        self.image = image
        self.secrets = secrets
        self.values = dict(values)
        # All containers share this machine's network, where the usual ports may be taken.
        self.ports = {"http": free_port(), "ops": free_port()}
        self.values |= {"PORT": str(self.ports["http"]), "WORKER_PORT": str(self.ports["ops"])}

    def options(self, pod: Pods) -> list[str]:
        """Return podman's options for the only container of a pod."""
        (container,) = pod.containers
        user = pod.spec["securityContext"]
        limit = int(amount(container["resources"]["limits"]["memory"]))
        volumes = {volume["name"]: volume for volume in pod.spec["volumes"]}
        mounts = [self._mount(volumes[m["name"]], m["mountPath"]) for m in container["volumeMounts"]]
        return [
            "--network=host", f"--user={user['runAsUser']}:{user['runAsGroup']}", f"--group-add={user['fsGroup']}",
            "--read-only", "--read-only-tmpfs=false", "--security-opt=no-new-privileges",
            *(f"--cap-drop={name}" for name in container["securityContext"]["capabilities"]["drop"]),
            f"--memory={limit}", f"--memory-swap={limit}", *mounts,
            *(f"--env={name}={value}" for name, value in self.values.items()),
        ]  # fmt: skip

    def _mount(self, volume: Mapping[str, Any], place: str) -> str:
        if "secret" in volume:
            for file in self.secrets.iterdir():
                os.chown(file, 0, 10001)
                file.chmod(volume["secret"]["defaultMode"])
            return f"--volume={self.secrets}:{place}:ro"
        size = int(amount(volume["emptyDir"]["sizeLimit"]))
        return f"--shm-size={size}" if place == "/dev/shm" else f"--tmpfs={place}:rw,size={size},mode=1777"

    def start(self, pod: Pods) -> Container:
        """Start the only container of a pod."""
        return self.rig.run(self.image, *pod.containers[0]["command"], options=self.options(pod))

    def once(self, pod: Pods) -> str:
        """Run a Job's container to its end and return what it wrote."""
        return self.rig.once(self.image, *pod.containers[0]["command"], options=self.options(pod)).stdout

    def ask(self, pod: Pods, probe: str) -> tuple[int, str]:
        """Ask a probe as the kubelet does: by the pod's address, whatever the service is called."""
        get = pod.containers[0][probe]["httpGet"]
        return request(self.ports[get["port"]], get["path"], Host="10.1.2.3:8000")

    def wait(self, pod: Pods, probe: str, seconds: float) -> None:
        """Wait until a probe is answered with 200."""
        wait_for(lambda: self.ask(pod, probe)[0] == 200, seconds)


class Running(NamedTuple):
    """A pod, and its container."""

    pod: Pods
    container: Container


def request(port: int, path: str, **headers: str) -> tuple[int, str]:
    """Return status and text; 0 where nobody listens."""
    asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(asked, timeout=2) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


@pytest.fixture(scope="module")
def shown(rendered: Path) -> Sequence[Pods]:
    """Return the pods of the manifests."""
    return pods(load_base(rendered / "kubernetes/base"))


def one(shown: Sequence[Pods], owner: str) -> Pods:
    return next(pod for pod in shown if pod.owner == owner)


@pytest.fixture(scope="module")
def node(
    rig: Rig,
    image: str,
    rendered: Path,
    shared_postgres: Postgres,
    shared_valkey: Valkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Node]:
    """Give a node with the production overlay's settings, a database and a Redis."""
    folder = tmp_path_factory.mktemp("secrets")
    folder.chmod(0o755)
    with shared_postgres.database() as database:
        secrets = {"DATABASE_URL": database, "REDIS_URL": shared_valkey.url, "METRICS_TOKEN": TOKEN}
        secrets |= {name: f"{name}-of-this-test-{'x' * 32}" for name in ("SECRET_KEY", "JWT_SECRET_KEY")}
        for name, value in secrets.items():
            (folder / name).write_text(value)
        yield Node(rig, image, folder, settings(rendered / "kubernetes/overlays/production", "shop-config"))


@pytest.fixture(scope="module")
def migrated(node: Node, shown: Sequence[Pods]) -> str:
    """Run the migration and return what it wrote."""
    return node.once(one(shown, "Job/shop-migrate"))


def test_migration(migrated: str) -> None:
    """The Job's pod brings a new database up to date and ends well."""
    assert "The database is ready" in migrated


@pytest.fixture(scope="module")
def web(node: Node, shown: Sequence[Pods], migrated: str) -> Iterator[Running]:
    """Start the web server's pod."""
    pod = one(shown, "Deployment/shop-web")
    with node.start(pod) as container:
        yield Running(pod, container)


@pytest.fixture(scope="module")
def worker(node: Node, shown: Sequence[Pods], migrated: str) -> Iterator[Running]:
    """Start the worker's pod."""
    pod = one(shown, "Deployment/shop-worker")
    with node.start(pod) as container:
        yield Running(pod, container)


def test_probes(node: Node, web: Running, worker: Running) -> None:
    """Both pods answer each of their probes within the time that it has."""
    for pod in (web.pod, worker.pod):
        probe = pod.containers[0]["startupProbe"]
        node.wait(pod, "startupProbe", probe["periodSeconds"] * probe["failureThreshold"])
        node.wait(pod, "readinessProbe", 10)
        node.wait(pod, "livenessProbe", 1)


def test_the_ingress_is_served(node: Node, web: Running) -> None:
    """The web pod serves the host of the Ingress behind one proxy, as nobody, and writes to its volumes only."""
    assert request(node.ports["http"], "/api/products", **BY_INGRESS)[0] == 200
    assert request(node.ports["http"], "/", Host="other.example.com")[0] == 400
    assert web.container.exec("id", "-u").strip() == "10001"
    assert web.container.exec("sh", "-c", "touch /app/x 2>&- || echo refused").strip() == "refused"


def test_queues_are_told(node: Node, worker: Running) -> None:
    """The worker tells Prometheus, by its token, how many jobs wait: what it is scaled by."""
    wait_for(lambda: 'flask_prod_jobs{queue="emails",state="waiting"}' in metrics(node, TOKEN), 20)

    assert metrics(node, "another") == ""


def test_stop(node: Node, web: Running, worker: Running) -> None:
    """After SIGTERM the web pod drains: it serves and is not ready; both end with 0 within their grace."""
    began = time.monotonic()
    web.container.signal()
    worker.container.signal()

    wait_for(lambda: node.ask(web.pod, "readinessProbe") == (503, "draining"), 4)
    assert request(node.ports["http"], "/api/products", **BY_INGRESS)[0] == 200
    grace = web.pod.spec["terminationGracePeriodSeconds"]
    assert [web.container.wait(grace), worker.container.wait(grace)] == [0, 0]
    assert time.monotonic() - began < grace


def metrics(node: Node, token: str) -> str:
    """Return the worker's page, or nothing to whom it is refused."""
    status, text = request(node.ports["ops"], "/metrics", Authorization=f"Bearer {token}")
    return text if status == 200 else ""
