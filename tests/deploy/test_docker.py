"""The image: what it is built of, what is in it, and how its containers start, serve, and stop."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from flask_prod.server.load import Load, Rotation
from tests.deploy.conftest import CANARY, ROOT, render
from tests.deploy.containers import STAND_IN, Container, Rig
from tests.deploy.tools import program, run
from tests.servers import Postgres, Valkey, free_port, wait_for

pytestmark = pytest.mark.timeout(300)  # whoever comes first waits until the image is built

USER = "10001"
LIMIT = 128 * 1024**2
GRACE = 30
"""Seconds from SIGTERM to SIGKILL, as all deployment files of the shop say."""

STRICT = (
    "--network=host", "--read-only", "--read-only-tmpfs=false", "--tmpfs=/tmp", "--cap-drop=ALL",
    "--security-opt=no-new-privileges", f"--memory={LIMIT}", f"--memory-swap={LIMIT}", "--pids-limit=64",
)  # fmt: skip
AT_WORK = {
    "SECURITY_FORCE_HTTPS": "0",  # no proxy stands before it here
    "RATE_LIMIT_ENABLED": "0",  # all clients are one
    "PASSWORD_METHOD": "pbkdf2:sha256:600000",  # scrypt takes 32 MB for each who signs in
    "WEB_CONCURRENCY": "1",
    "DRAIN_SECONDS": "2.5",
}
LOOK = """
import importlib.metadata, json, os, sys
sbom = json.load(open(sys.argv[1]))
found = {"files": [], "writable": [], "canaries": [], "sbom": [c["name"] for c in sbom["components"]]}
found["installed"] = [d.name for d in importlib.metadata.distributions() if "/opt/venv" in str(d._path)]
for folder, folders, files in os.walk("/"):
    folders[:] = [name for name in folders if os.path.join(folder, name) not in ("/proc", "/sys", "/dev")]
    if os.access(folder, os.W_OK):
        found["writable"].append(folder)
    for name in files:
        path = os.path.join(folder, name)
        if folder.startswith("/app"):
            found["files"].append(path)
            if b"%s" in open(path, "rb").read():
                found["canaries"].append(path)
print(json.dumps(found))
""".replace("%s", CANARY)

Options = Callable[..., list[str]]


def named(name: str) -> str:
    """Return the name of a package as all spellings of it have it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def options(
    tmp_path_factory: pytest.TempPathFactory, shared_postgres: Postgres, shared_valkey: Valkey
) -> Iterator[Options]:
    """Give `options(PORT=...)`: the strict ones, secrets as files, and these variables."""
    folder = tmp_path_factory.mktemp("secrets")
    with shared_postgres.database() as database:
        secrets = {"DATABASE_URL": database, "REDIS_URL": shared_valkey.url}
        secrets |= {name: f"{name}-of-this-test-{'x' * 32}" for name in ("SECRET_KEY", "JWT_SECRET_KEY")}
        for name, value in secrets.items():
            (folder / name).write_text(value)
            (folder / name).chmod(0o444)
        folder.chmod(0o755)  # for the user in the container

        def give(**variables: object) -> list[str]:
            told = [f"--env={name}={value}" for name, value in {**AT_WORK, **variables}.items()]
            return [*STRICT, f"--volume={folder}:/run/secrets:ro", *told]

        yield give


@pytest.fixture(scope="module")
def migrated(rig: Rig, image: str, options: Options) -> Sequence[str]:
    """Run `migrate` twice, and return what each said."""
    return [rig.once(image, "migrate", options=options()).stdout for _ in range(2)]


@pytest.fixture(scope="module")
def web(rig: Rig, image: str, options: Options, migrated: Sequence[str]) -> Iterator[tuple[Container, int]]:
    """Run one web server, one worker with four threads; give it with its port once it is healthy.

    All tests share it, and the last one stops it.
    """
    port = free_port()
    with rig.run(image, options=options(PORT=port)) as container:
        wait_for(container.probe, 90, "a healthy web server")
        yield container, port


@pytest.fixture(scope="module")
def bakery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project without jobs and database, with requirements.txt, and its rendered files."""
    project = tmp_path_factory.mktemp("bakery")
    (project / "wsgi.py").write_text(
        "from flask import Flask\nfrom flask_prod import ProdKit\n"
        "app = Flask('bakery')\nProdKit(app, without=['jobs', 'database', 'migrations', 'backups'])\n"
    )
    (project / "requirements.txt").write_text("flask-prod\n")
    (project / "pyproject.toml").write_text("[tool.ruff]\nline-length = 100\n")
    render("docker", to=project / "deploy", app="wsgi", cwd=project)
    return project


class TestWhatIsRendered:
    """The files themselves, for the shop and for an application that is different in all."""

    def test_shop(self, rendered: Path) -> None:
        """The shop's image is built of its wheel, and starts what the shop has."""
        text = (rendered / "docker/Dockerfile").read_text()

        assert re.search(r'pip wheel .*"\.\[[\w,-]*postgres[\w,-]*\]"', text)
        assert "COPY --from=build /app/sample_app/ ./sample_app/" in text
        assert "CONFIG_DIR=/app/sample_app/config" in text
        assert sorted(path.name for path in (rendered / "docker/bin").iterdir()) == [
            "backup", "healthy", "migrate", "web", "worker",
        ]  # fmt: skip
        assert '"flask", "prepare"' in (rendered / "docker/bin/migrate").read_text()

    def test_small_application(self, bakery: Path) -> None:
        """Without jobs and database there is no worker and no migration; requirements.txt says what is needed."""
        text = (bakery / "deploy/docker/Dockerfile").read_text()

        assert "--requirement requirements.txt" in text
        assert 'SERVICE_NAME="bakery"' in text
        assert "IMAGE worker" not in text
        assert "IMAGE migrate" not in text
        assert "CONFIG_DIR" not in text
        assert sorted(path.name for path in (bakery / "deploy/docker/bin").iterdir()) == ["healthy", "web"]
        assert '"-c", "python:flask_prod.server.gunicorn_conf", "wsgi:app"' in (
            bakery / "deploy/docker/bin/web"
        ).read_text()  # fmt: skip

    @pytest.mark.parametrize("name", ["backup", "healthy", "migrate", "web", "worker"])
    def test_entry_points_compile(self, rendered: Path, name: str) -> None:
        """What is rendered is Python that can be run, and executable."""
        path = rendered / "docker/bin" / name

        compile(path.read_text(), name, "exec")
        assert path.stat().st_mode & 0o111

    @pytest.mark.deploy
    def test_hadolint(self, rendered: Path, bakery: Path, pytestconfig: pytest.Config) -> None:
        """Nothing is found in either file, notes on style included."""
        files = (rendered / "docker/Dockerfile", bakery / "deploy/docker/Dockerfile")

        done = run(program("hadolint", pytestconfig), "--failure-threshold=style", *files)

        assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.deploy
class TestImage:
    """What is in it, and what it says about itself."""

    def test_what_it_says(self, rig: Rig, image: str) -> None:
        """The user is a number, the stop signal SIGTERM, and the labels tell where it comes from."""
        found = rig.inspect(image)
        said = found["Config"]

        assert said["User"] == f"{USER}:{USER}"
        assert said["StopSignal"] == "SIGTERM"
        assert said["Cmd"] == ["web"]
        assert "Entrypoint" not in said
        assert found["Healthcheck"]["Test"][0] == "CMD"
        assert said["Labels"]["org.opencontainers.image.version"] == "1.2.3"
        assert said["Labels"]["org.opencontainers.image.revision"] == "0123abc"
        assert "SERVICE_VERSION=1.2.3" in said["Env"]
        print(f"image {found['Size'] / 1e6:.0f} MB on a base of {rig.inspect(STAND_IN)['Size'] / 1e6:.0f} MB")

    def test_nothing_secret(self, rig: Rig, image: str) -> None:
        """Neither settings, history nor labels name a secret or this machine's package index."""
        told = json.dumps(rig.inspect(image)) + rig.podman("history", "--no-trunc", image).stdout

        assert CANARY not in told
        assert not re.search(r"SECRET_KEY|DATABASE_URL|REDIS_URL|password|index-url", told)

    def test_what_is_in_it(self, rig: Rig, image: str) -> None:
        """Sources and wheels, no pip, nothing of a developer's disk, nothing to write but data; and its SBOM."""
        sbom = rig.inspect(image)["Config"]["Labels"]["sbom"]
        found = json.loads(rig.once(image, "python", "-c", LOOK, sbom).stdout)
        tops = {Path(path).parts[2] for path in found["files"]}

        assert tops == {"gunicorn.conf.py", "sample_app"}
        assert found["canaries"] == []
        writable = {path for path in found["writable"] if not path.startswith(("/tmp", "/var/tmp", "/run"))}
        assert writable == {"/app/instance", "/backups"}
        assert not any("__pycache__" in path and "instance" in path for path in found["files"])
        assert "pip" not in found["installed"]
        assert {"flask-prod", "flask", "gunicorn", "psycopg"} <= {named(name) for name in found["sbom"]}
        assert {named(name) for name in found["installed"]} <= {named(name) for name in found["sbom"]}


@pytest.mark.deploy
class TestMigrate:
    """`migrate`: the database is brought up to date."""

    def test_twice(self, migrated: Sequence[str]) -> None:
        """It may run again, with nothing left to do."""
        first, second = migrated

        assert "200 products" in first
        assert "200 products" not in second
        assert "ready" in second


@pytest.mark.deploy
class TestWeb:
    """`web`: the default, in a container that may do nothing."""

    def test_start(self, web: tuple[Container, int]) -> None:
        """It is healthy within 10 seconds of a processor: how long that takes is up to who else wants it."""
        container, _ = web
        used, waited = processor_time(container), time.monotonic() - container.began
        print(f"healthy after {waited:.1f} s, {used:.1f} s of a processor, the checks included")

        assert used < 10

    def test_who_serves(self, web: tuple[Container, int]) -> None:
        """Process 1 is gunicorn itself, with no rights at all, on a disk that it cannot write to."""
        container, _ = web
        status = container.exec("cat", "/proc/1/status")

        assert container.exec("cat", "/proc/1/cmdline").split("\0")[1] == "/usr/local/bin/web"
        assert re.search(rf"^Uid:\s+{USER}\s+{USER}\s+{USER}", status, re.MULTILINE)
        assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
        assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
        for place in ("/app", "/opt/venv", "/usr/local/bin", "/app/sample_app"):
            tried = container.rig.podman("exec", container.name, "touch", f"{place}/x", check=False)
            assert "Read-only" in tried.stderr
        assert '"service":"sample_app"' not in container.logs  # the master knows the profile too

    def test_memory(self, web: tuple[Container, int]) -> None:
        """128 MB are enough for one worker with four threads whose clients look around, sign up and buy."""
        container, port = web
        words = ("--buyers=4", "--seconds=4", "--pace=0.02", "--mail-wait=0", f"--url=http://127.0.0.1:{port}")
        done = run(sys.executable, "-m", "sample_app.traffic", *words, cwd=ROOT)
        print(done.stdout, f"most memory: {most_memory(container) / 1e6:.0f} MB of {LIMIT / 1e6:.0f}")

        assert re.search(r"^failed +0 answers from 500 up, 0 broken connections", done.stdout, re.MULTILINE)
        assert int(re.search(r"^orders +(\d+)", done.stdout, re.MULTILINE)[1]) > 0  # type: ignore[index]
        assert "SIGKILL" not in container.logs
        assert most_memory(container) < LIMIT

    def test_stop(self, web: tuple[Container, int]) -> None:
        """SIGTERM under load costs no request: all are answered until readiness says no, and it ends with 0."""
        container, port = web
        paths = ("/", "/api/products", "/products/1", "/health/live")
        with Rotation([port], "/health/ready", lag=1.0) as rotation, Load(rotation, paths, 8, 0.01) as load:
            time.sleep(1.5)
            before = load.tally.requests
            began = time.monotonic()
            container.signal("TERM")
            wait_for(lambda: not rotation.ports, 20, "readiness that says no")
        code, seconds = container.wait(GRACE + 10), time.monotonic() - began
        print(f"{load.tally.requests} requests, {before} before SIGTERM; ended after {seconds:.1f} s")

        assert (load.tally.lost, load.tally.told) == (0, [])
        assert load.tally.requests > before > 20
        assert code == 0
        assert seconds < GRACE

    def test_stop_at_once(self, rig: Rig, image: str, options: Options) -> None:
        """A stop while it still starts is no lost signal, though process 1 gets only what it listens for."""
        with rig.run(image, options=options(PORT=free_port())) as container:
            assert stopped_while_starting(container) == 0


@pytest.mark.deploy
class TestWorker:
    """`worker`: runs jobs, from the same image."""

    def test_life(self, rig: Rig, image: str, options: Options, migrated: Sequence[str]) -> None:
        """It is process 1, takes a job of each queue, and ends with 0 within the grace time."""
        with rig.run(image, "worker", options=options()) as container:
            answer = rig.once(image, "flask", "prod", "jobs", "ping", options=options()).stdout
            healthy = container.probe()
            began = time.monotonic()
            container.signal("TERM")
            code, seconds = container.wait(GRACE + 10), time.monotonic() - began
            print(answer, f"ended after {seconds:.1f} s")

            assert "emails" in answer
            assert healthy
            assert code == 0
            assert seconds < GRACE
            assert "has stopped" in container.logs

    def test_stop_at_once(self, rig: Rig, image: str, options: Options) -> None:
        """A stop while it still loads the application ends it."""
        with rig.run(image, "worker", options=options()) as container:
            assert stopped_while_starting(container) == 0


def stopped_while_starting(container: Container) -> int:
    """Send SIGTERM as soon as somebody listens; return the exit code. Who has not heard it goes on for minutes."""
    wait_for(lambda: listens(container.pid, signal.SIGTERM), 10, "the entry point")
    container.signal("TERM")
    return container.wait(30)


def listens(pid: int, number: int) -> bool:
    """Tell whether the entry point has a handler for a signal; its interpreter, while it starts, has none."""
    process = Path(f"/proc/{pid}")
    caught = int((process / "status").read_text().partition("SigCgt:")[2].split()[0], 16)
    return b"/usr/local/bin/" in (process / "cmdline").read_bytes() and bool(caught >> (number - 1) & 1)


def most_memory(container: Container) -> int:
    """Return the most bytes the container ever held."""
    return counted(container, "memory/memory.max_usage_in_bytes", "memory.peak", r"(\d+)")


def processor_time(container: Container) -> float:
    """Return the seconds of a processor that the container has used."""
    try:
        return counted(container, "cpuacct/cpuacct.usage", "-", r"(\d+)") / 1e9
    except LookupError:
        return counted(container, "-", "cpu.stat", r"usage_usec (\d+)") / 1e6


def counted(container: Container, first: str, second: str, form: str) -> int:
    """Return what the kernel has counted, in the file of cgroup 1 or 2; LookupError where there is none."""
    for name in (first, second):
        said = re.search(form, container.exec("cat", f"/sys/fs/cgroup/{name}", check=False))
        if said:
            return int(said[1])
    raise LookupError(f"this kernel tells neither {first} nor {second}")
